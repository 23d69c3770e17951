import Foundation

struct Ready: Decodable {
    let event: String, contract: Int?, url: String?, token: String?
    let code: String?, message: String?, hint: String?
}

final class Sidecar {
    let process = Process()
    private let input = Pipe()          // kept: when it goes, the service goes
    private(set) var ready: Ready

    init(program: URL) throws {
        let output = Pipe()
        process.executableURL = program
        process.arguments = ["--port", "0", "--generate-token", "--exit-with-stdin"]
        process.standardInput = input
        process.standardOutput = output
        process.standardError = FileHandle.standardError
        try process.run()
        var line = Data()
        while let byte = try output.fileHandleForReading.read(upToCount: 1), byte.first != 10, !byte.isEmpty {
            line.append(byte)
        }
        ready = try JSONDecoder().decode(Ready.self, from: line)
        guard ready.event == "ready", ready.contract == 1 else {
            process.waitUntilExit()
            throw NSError(domain: ready.code ?? "contract", code: Int(process.terminationStatus),
                          userInfo: [NSLocalizedDescriptionKey: ready.message ?? ""])
        }
    }

    func call(_ method: String, _ path: String, _ body: [String: Any]? = nil,
              headers: [String: String] = [:]) async throws -> [String: Any] {
        var request = URLRequest(url: URL(string: ready.url! + path)!)
        request.httpMethod = method
        request.httpBody = try body.map { try JSONSerialization.data(withJSONObject: $0) }
        request.setValue("Bearer \(ready.token!)", forHTTPHeaderField: "Authorization")
        request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        headers.forEach { request.setValue($1, forHTTPHeaderField: $0) }
        let (data, _) = try await URLSession.shared.data(for: request)
        return try JSONSerialization.jsonObject(with: data) as! [String: Any]
    }

    func transcribe(_ file: URL, onProgress: (Double?) -> Void) async throws -> [String: Any] {
        var job = try await call("POST", "/transcribe", ["audio_path": file.path],
                                 headers: ["Prefer": "respond-async"])
        while ["queued", "running"].contains(job["state"] as? String ?? "") {
            onProgress((job["progress"] as? [String: Any])?["fraction"] as? Double)
            try? await Task.sleep(nanoseconds: 100_000_000)  // ends at once when the task is cancelled
            let address = "/v1/jobs/\(job["id"]!)"
            // A request of a cancelled task would not be sent; one of a task of its own is.
            job = try await Task.isCancelled
                ? Task.detached { try await self.call("DELETE", address + "?keep=true") }.value
                : call("GET", address)
        }
        guard job["state"] as? String == "done" else {
            throw NSError(domain: "transcription", code: 1, userInfo: job)  // failed, or cancelled
        }
        return try await call("GET", "/v1/jobs/\(job["id"]!)/transcript")
    }

    func stop() { try? input.fileHandleForWriting.close() }
}
