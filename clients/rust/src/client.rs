//! Calls of a running service, one request each.

use crate::error::Error;
use crate::pulling::Pulling;
use crate::transcribing::{Audio, Source, Transcribing};
use crate::wire::{
    Estimate, Health, Job, LocalModel, Model, Options, Problem, Reloaded, Transcript,
};
use crate::Result;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A call that needs no work of the engine.
const QUICK: Duration = Duration::from_secs(30);
/// An upload, and a load of a model.
const SLOW: Duration = Duration::from_secs(3600);

/// How a service is reached.
#[derive(Clone, Default)]
pub struct Access {
    /// `http://127.0.0.1:8765`, say.
    pub url: String,
    /// Its token, if it wants one.
    pub token: Option<String>,
    /// SHA-256 of its certificate, with `https`: no other is taken, and without it none.
    pub fingerprint: Option<String>,
}

/// Calls of one service. A clone is cheap and shares its connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) access: Arc<Access>,
    http: reqwest::Client,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

/// A page of the list of jobs.
#[derive(Clone, Debug, Deserialize)]
pub struct JobPage {
    /// The jobs, oldest first.
    pub jobs: Vec<Job>,
    /// What the next page begins after; `None` at the end.
    pub next: Option<String>,
}

impl Client {
    /// Calls of the service at an address. Nothing is sent yet, and no proxy is used.
    ///
    /// # Errors
    /// The fingerprint is not one of SHA-256.
    pub fn connect(access: Access) -> Result<Client> {
        let tls = crate::tls::pinned(access.fingerprint.as_deref())?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone()) // whatever else the host's program has for it
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .build()?;
        Ok(Client { access: Arc::new(access), http, tls: Arc::new(tls) })
    }

    /// How it is reached, token included.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// How the service is; it answers at once, also while it works.
    pub async fn health(&self) -> Result<Health> {
        answer(self.request(Method::GET, "/health")).await
    }

    /// Transcribe a recording. Nothing happens before the first step is asked for.
    pub fn transcribe(&self, audio: Audio, options: Options) -> Transcribing {
        Transcribing::new(Source::Client(self.clone()), audio, options)
    }

    /// Submit a recording as a job that is followed elsewhere or later; see
    /// [`transcribe`](Client::transcribe) for all in one.
    pub async fn submit(&self, audio: &Audio, options: &Options) -> Result<Job> {
        let request = self.request(Method::POST, "/v1/jobs").timeout(SLOW);
        answer(match audio {
            Audio::Path(path) => {
                let mut body = json!(options);
                body["audio_path"] = json!(absolute(path)?);
                request.json(&body)
            }
            Audio::Bytes { name, data } => {
                let part = reqwest::multipart::Part::stream(data.clone()).file_name(name.clone());
                let mut form = reqwest::multipart::Form::new();
                for (field, value) in json!(options).as_object().into_iter().flatten() {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                    form = form.text(field.clone(), text);
                }
                request.multipart(form.part("audio", part))
            }
        })
        .await
    }

    /// A job as it stands.
    pub async fn job(&self, id: &str) -> Result<Job> {
        answer(self.request(Method::GET, &format!("/v1/jobs/{id}"))).await
    }

    /// Jobs, oldest first; `after` is `next` of the page before.
    pub async fn jobs(&self, after: Option<&str>) -> Result<JobPage> {
        let request = self.request(Method::GET, "/v1/jobs");
        answer(request.query(&after.map(|after| [("after", after)]))).await
    }

    /// The transcript of a job that is done.
    pub async fn transcript(&self, id: &str) -> Result<Transcript> {
        answer(self.request(Method::GET, &format!("/v1/jobs/{id}/transcript"))).await
    }

    /// The same as a file: `text`, `srt`, `vtt`, `tsv`, `rttm` or `json`.
    pub async fn transcript_as(&self, id: &str, format: &str) -> Result<String> {
        let request = self.request(Method::GET, &format!("/v1/jobs/{id}/transcript"));
        Ok(good(request.query(&[("format", format)]).send().await?).await?.text().await?)
    }

    /// End a job. It stays in the list, as cancelled; one that has ended is unchanged.
    pub async fn cancel(&self, id: &str) -> Result<Job> {
        answer(self.request(Method::DELETE, &format!("/v1/jobs/{id}?keep=true"))).await
    }

    /// End a job, and forget it with its words.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let request = self.request(Method::DELETE, &format!("/v1/jobs/{id}"));
        good(request.send().await?).await.map(drop)
    }

    /// The names of the loaded model.
    pub async fn models(&self) -> Result<Vec<Model>> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Model>,
        }
        let list: List = answer(self.request(Method::GET, "/v1/models")).await?;
        Ok(list.data)
    }

    /// The models that can be used or downloaded here; none if the token lacks the scope `admin`.
    pub async fn local_models(&self) -> Result<Vec<LocalModel>> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            models: Vec<LocalModel>,
        }
        let list: List = answer(self.request(Method::GET, "/v1/models")).await?;
        Ok(list.models)
    }

    /// Download a model, by a name of [`local_models`](Client::local_models) or `OWNER/NAME`, or
    /// check it. [`use_model`](Client::use_model) loads it.
    ///
    /// # Errors
    /// There is no such model, or the token lacks the scope `admin`. What goes wrong later is an
    /// error of [`Pulling::next`].
    pub async fn pull_model(&self, name: &str) -> Result<Pulling> {
        let url = format!("{}/v1/models/pull", self.access.url); // there is no limit of its time
        let request = self.authorized(self.http.post(url)).json(&json!({ "name": name }));
        Ok(Pulling::new(good(request.send().await?).await?))
    }

    /// Delete a downloaded model.
    ///
    /// # Errors
    /// It is not here (`model_not_found`), is used (`model_in_use`) or being downloaded
    /// (`pull_running`), or the token lacks the scope `admin`.
    pub async fn delete_model(&self, name: &str) -> Result<()> {
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let (code, detail) =
                ("model_not_found".into(), format!("No model has the name {name}."));
            return Err(Error::Problem(Problem { status: 404, code, detail, hint: String::new() }));
        }
        let models = reqwest::Url::parse(&format!("{}/v1/models", self.access.url));
        let mut url = models.map_err(|error| Error::Strange(error.to_string()))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(name.split('/')); // encoded
        }
        let request = self.authorized(self.http.delete(url).timeout(QUICK));
        good(request.send().await?).await.map(drop)
    }

    /// Whether a recording of so many seconds fits, and how long it will take.
    pub async fn estimate(&self, seconds: f64) -> Result<Estimate> {
        let request = self.request(Method::POST, "/v1/estimate");
        answer(request.json(&json!({ "duration": seconds }))).await
    }

    /// Load the engine anew at another precision (`fp16`, `int8`, `int4`); the answer comes when it
    /// is loaded.
    pub async fn reload(&self, precision: &str) -> Result<Reloaded> {
        let request = self.request(Method::POST, "/reload-model").timeout(SLOW);
        answer(request.json(&json!({ "precision": precision }))).await
    }

    /// Load an installed model for recordings, whatever its engine, after the running job; the
    /// answer comes when it is loaded.
    ///
    /// # Errors
    /// It is not here (`model_not_found`), cannot be loaded (the old one goes on serving), or the
    /// token lacks the scope `reload`.
    pub async fn use_model(&self, name: &str) -> Result<Reloaded> {
        let request = self.request(Method::POST, "/reload-model").timeout(SLOW);
        answer(request.json(&json!({ "model": name }))).await
    }

    /// A word that opens one live connection within two minutes: for a page, which must not have
    /// the token.
    pub async fn live_ticket(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Ticket {
            ticket: String,
        }
        let ticket: Ticket = answer(self.request(Method::POST, "/v1/live/ticket")).await?;
        Ok(ticket.ticket)
    }

    /// The events of a job behind one of them; there is no limit of its time.
    pub(crate) async fn events(&self, id: &str, after: Option<u64>) -> Result<Response> {
        let url = format!("{}/v1/jobs/{id}/events", self.access.url);
        let mut request = self.authorized(self.http.get(url));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        good(request.send().await?).await
    }

    fn request(&self, method: Method, address: &str) -> RequestBuilder {
        let url = format!("{}{address}", self.access.url);
        self.authorized(self.http.request(method, url).timeout(QUICK))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.access.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

/// The path as the service takes it: absolute, and text.
fn absolute(path: &Path) -> Result<String> {
    let whole = std::path::absolute(path).map_err(|error| Error::Unreadable(error.to_string()))?;
    let text = whole.into_os_string().into_string();
    text.map_err(|path| Error::Unreadable(format!("{path:?} is not UTF-8: send its bytes")))
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let body = good(request.send().await?).await?.bytes().await?;
    serde_json::from_slice(&body).map_err(|error| Error::Strange(error.to_string()))
}

/// The answer if it is a good one, or why it is none.
async fn good(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    Err(problem(status.as_u16(), &response.bytes().await?))
}

/// The error in the body of a refusal: a problem, or one of OpenAI's at the addresses of its API.
pub(crate) fn problem(status: u16, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Refusal {
        Problem(Problem),
        OpenAi { error: OpenAiError },
    }
    #[derive(Deserialize)]
    struct OpenAiError {
        code: String,
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Refusal::Problem(problem)) => Error::Problem(problem),
        Ok(Refusal::OpenAi { error: OpenAiError { code, message: detail } }) => {
            Error::Problem(Problem { status, code, detail, hint: String::new() })
        }
        Err(_) => Error::Strange(format!(
            "HTTP {status}: {}",
            String::from_utf8_lossy(body).chars().take(200).collect::<String>()
        )),
    }
}
