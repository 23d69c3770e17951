using System.Diagnostics;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;

public sealed class Sidecar : IDisposable
{
    private readonly Process process;
    private readonly HttpClient http;

    public Sidecar(string program)
    {
        process = Process.Start(new ProcessStartInfo(program)
        {
            ArgumentList = { "--port", "0", "--generate-token", "--exit-with-stdin" },
            RedirectStandardInput = true,       // kept open: when it closes, the service ends
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
            CreateNoWindow = true,
        })!;
        process.ErrorDataReceived += (_, line) => Trace.WriteLine(line.Data);
        process.BeginErrorReadLine();           // an unread pipe would cost lines of log
        var line = process.StandardOutput.ReadLine() ?? throw new InvalidOperationException("no line");
        var ready = JsonDocument.Parse(line).RootElement;
        if (ready.GetProperty("event").GetString() != "ready" || ready.GetProperty("contract").GetInt32() != 1)
            throw new InvalidOperationException($"{ready.GetProperty("code")}: {ready.GetProperty("message")}");
        http = new HttpClient(new SocketsHttpHandler { UseProxy = false })
        {
            BaseAddress = new Uri(ready.GetProperty("url").GetString()!),
        };
        http.DefaultRequestHeaders.Authorization =
            new AuthenticationHeaderValue("Bearer", ready.GetProperty("token").GetString());
    }

    public async Task<JsonElement> TranscribeAsync(string file, IProgress<double?> progress, CancellationToken stop = default)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/transcribe")
        {
            Content = JsonContent.Create(new { audio_path = file }),
            Headers = { { "Prefer", "respond-async" } },
        };
        var job = await ReadAsync(await http.SendAsync(request));
        var address = $"/v1/jobs/{job.GetProperty("id").GetString()}";
        while (job.GetProperty("state").GetString() is "queued" or "running")
        {
            var fraction = job.GetProperty("progress").GetProperty("fraction");
            progress.Report(fraction.ValueKind == JsonValueKind.Null ? null : fraction.GetDouble());
            await Task.Delay(100);
            job = await ReadAsync(stop.IsCancellationRequested
                ? await http.DeleteAsync(address + "?keep=true") : await http.GetAsync(address));
        }
        return await ReadAsync(await http.GetAsync(address + "/transcript")); // else why there is none
    }

    private static async Task<JsonElement> ReadAsync(HttpResponseMessage response)
    {
        var body = await response.Content.ReadFromJsonAsync<JsonElement>();
        return response.IsSuccessStatusCode ? body
            : throw new InvalidOperationException($"{body.GetProperty("code")}: {body.GetProperty("detail")}");
    }

    public void Dispose()
    {
        process.StandardInput.Close();
        if (!process.WaitForExit(20_000)) process.Kill(entireProcessTree: true);
        http.Dispose();
    }
}
