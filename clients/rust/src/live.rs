//! Live audio: audio goes up while it is spoken, and words come back.

use crate::client::{problem, Client};
use crate::error::{with_causes, Error};
use crate::live_wire::{Frame, LiveEvent, LiveOptions, Order};
use crate::wire::Problem;
use crate::Result;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{client_async, WebSocketStream};

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}
type Socket = WebSocketStream<Box<dyn Wire>>;

/// The sending side of a live session. It waits where the service does not keep up.
pub struct LiveInput {
    sink: SplitSink<Socket, Message>,
}

/// The receiving side of a live session.
pub struct Live {
    stream: SplitStream<Socket>,
    over: bool,
}

impl Client {
    /// Begin a session of live audio. The session ends with its connection: it is for a service of
    /// this machine, where only a crash breaks one.
    ///
    /// # Errors
    /// The service is gone, refuses (`live_full`), or has no live engine.
    pub async fn live(&self, options: &LiveOptions) -> Result<(LiveInput, Live)> {
        let (mut sink, mut stream) = self.socket().await?.split();
        sink.send(text(&Order::Begin(options))?).await.map_err(lost)?;
        loop {
            match receive(&mut stream).await? {
                Some(Frame::Began {}) => break,
                Some(_) => {}
                None => return Err(Error::Unreachable("the live session broke off".into())),
            }
        }
        Ok((LiveInput { sink }, Live { stream, over: false }))
    }

    async fn socket(&self) -> Result<Socket> {
        let address = format!("ws{}/v1/live", self.access.url.trim_start_matches("http"));
        let mut request = address.into_client_request().map_err(lost)?;
        if let Some(token) = &self.access.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let value = value.map_err(|error| Error::Strange(error.to_string()))?;
            request.headers_mut().insert("Authorization", value);
        }
        let wire = self.wire(request.uri()).await?;
        let (socket, _) = client_async(request, wire).await.map_err(lost)?;
        Ok(socket)
    }

    async fn wire(&self, uri: &Uri) -> Result<Box<dyn Wire>> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let usual = if uri.scheme_str() == Some("wss") { 443 } else { 80 };
        let unreachable = |error: std::io::Error| Error::Unreachable(error.to_string());
        let port = uri.port_u16().unwrap_or(usual);
        let plain = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        let _ = plain.set_nodelay(true); // pieces of audio are small, and wanted now
        if uri.scheme_str() == Some("wss") {
            let name = rustls::pki_types::ServerName::try_from(host)
                .map_err(|error| Error::Strange(error.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&self.tls));
            return Ok(Box::new(connector.connect(name, plain).await.map_err(unreachable)?));
        }
        Ok(Box::new(plain))
    }
}

impl LiveInput {
    /// More audio: samples in the session's encoding, at most 10 s, best 0.1 s.
    pub async fn send(&mut self, audio: impl Into<Bytes>) -> Result<()> {
        self.sink.send(Message::Binary(audio.into())).await.map_err(lost)
    }

    /// End the turn behind the audio that was sent.
    pub async fn commit(&mut self) -> Result<()> {
        self.order(&Order::Commit).await
    }

    /// Drop the current turn, and its audio.
    pub async fn cancel(&mut self) -> Result<()> {
        self.order(&Order::Cancel).await
    }

    /// No more audio comes: the rest is told, and then the summary.
    pub async fn finish(&mut self) -> Result<()> {
        self.order(&Order::Finish).await
    }

    /// Leave the session as it is; no summary comes.
    pub async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = self.sink.send(Message::Close(Some(frame))).await;
    }

    async fn order(&mut self, order: &Order<'_>) -> Result<()> {
        self.sink.send(text(order)?).await.map_err(lost)
    }
}

impl Live {
    /// The next event; `None` behind the summary, or after the session was closed here.
    ///
    /// # Errors
    /// The service ended the session, or is gone.
    pub async fn next(&mut self) -> Option<Result<LiveEvent>> {
        while !self.over {
            match receive(&mut self.stream).await {
                Ok(Some(Frame::Event(event))) => {
                    self.over = matches!(event, LiveEvent::Summary { .. });
                    return Some(Ok(event));
                }
                Ok(Some(_)) => {}
                Ok(None) => self.over = true,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// A frame; `None`: the session was closed in order.
async fn receive(stream: &mut SplitStream<Socket>) -> Result<Option<Frame>> {
    loop {
        return match stream.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(Frame::Error { code, message: detail, hint }) => {
                    Err(Error::Problem(Problem { status: 0, code, detail, hint }))
                }
                Ok(frame) => Ok(Some(frame)),
                Err(error) => Err(Error::Strange(format!("{error} in {text}"))),
            },
            Some(Ok(Message::Close(Some(frame)))) if frame.code != CloseCode::Normal => {
                Err(Error::Unreachable(format!("closed: {} {}", frame.code, frame.reason)))
            }
            None | Some(Ok(Message::Close(_)) | Err(SocketError::ConnectionClosed)) => Ok(None),
            Some(Ok(_)) => continue, // pings are answered by the library
            Some(Err(error)) => Err(lost(error)),
        };
    }
}

fn text(order: &Order<'_>) -> Result<Message> {
    let text = serde_json::to_string(order).map_err(|error| Error::Strange(error.to_string()))?;
    Ok(Message::text(text))
}

fn lost(error: SocketError) -> Error {
    match error {
        SocketError::Http(answer) => {
            problem(answer.status().as_u16(), answer.body().as_deref().unwrap_or_default())
        }
        other => Error::Unreachable(with_causes(&other)),
    }
}
