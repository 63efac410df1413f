//! The server: its thread, its routes, and what all of them share.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use http_body_util::LengthLimitError;
use remuda_client::{Client, ConnectError, ConnectOptions, Definitions};
use remuda_net::Profile;
use remuda_net::connection_file::FileError;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use crate::answer::Refusal;
use crate::files::{self, Files};
use crate::token::Token;
use crate::view::DEFINITIONS;
use crate::{Address, definition, run};

/// Most bytes that a program is given to read by one request.
pub const MAX_INPUT_BYTES: usize = 256 << 20;
/// Most requests that are answered at a time; one more is told to come again.
pub const MAX_REQUESTS: usize = 256;

/// Most bytes of a request that is refused which are taken all the same.
const MAX_DISCARDED_BYTES: usize = 1 << 20;
/// How long they may take to come.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long requests may go on when the server ends.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How a server is to run.
#[derive(Debug)]
pub struct Settings {
    /// Where it listens.
    pub address: Address,
    /// What those who ask have to show.
    pub token: Token,
    /// The file that holds the token, if it was there before; else it is written into the profile.
    pub token_file: Option<PathBuf>,
    /// The profile into which is written where it is.
    pub profile: Profile,
    /// The connection file of the controller.
    pub client_file: PathBuf,
    /// Most bytes that a program is given to read by one request.
    pub max_input_bytes: usize,
}

/// A server that could not be started. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It cannot listen.
    #[error("cannot listen for HTTP at `{address}`: name another address with `--http`; port 0 takes a free one")]
    Bind {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// There is no way to the controller.
    #[error("the HTTP server cannot reach its controller")]
    Connect(#[from] ConnectError),
    /// The connection file of the controller.
    #[error("the HTTP server cannot use the connection file of its controller")]
    Connection(#[from] FileError),
    /// The file that says where it is.
    #[error("cannot write `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread.
    #[error("cannot start the thread of the HTTP server")]
    Thread(#[source] io::Error),
}

/// A server that runs, on a thread of its own, until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

/// What all requests share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    token: Token,
    room: Arc<Semaphore>,
    pub(crate) max_input_bytes: usize,
}

impl Shared {
    pub(crate) fn definitions(&self) -> Definitions {
        self.client.definitions()
    }
}

impl Server {
    /// Listens, connects to the controller, and then writes the files by which it is found.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let Settings { address, token, token_file, profile, client_file, max_input_bytes } = settings;
        let bind = |source| StartError::Bind { address, source };
        let way_in = files::way_in(&profile, &client_file)?;
        let (listener, client) = runtime.block_on(async {
            let listener = TcpListener::bind(address.socket()).await.map_err(bind)?;
            Ok::<_, StartError>((listener, Client::connect(ConnectOptions::file(way_in.to_path_buf())).await?))
        })?;
        drop(way_in);
        let bound = listener.local_addr().map_err(bind)?;
        let files = Files::write(&profile, &format!("http://{bound}"), &token, token_file.as_deref())
            .map_err(|(path, source)| StartError::File { path, source })?;
        let room = Arc::new(Semaphore::new(MAX_REQUESTS));
        let routes = routes(Shared { client, token, room, max_input_bytes });
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let serving = axum::serve(listener, routes).into_future();
                tokio::select! {
                    ended = serving => if let Err(error) = ended {
                        tracing::error!("the HTTP server has ended: {error}");
                    },
                    _ = stopped => {}
                }
            });
            drop(files);
            runtime.shutdown_timeout(END_TIMEOUT);
        };
        let thread = thread::Builder::new().name("http".to_owned()).spawn(serve).map_err(StartError::Thread)?;
        Ok(Self { address: bound, thread: Some(thread), stop: Some(stop) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn routes(shared: Shared) -> Router {
    let list = get(definition::list).post(definition::create);
    let one = get(definition::show).put(definition::replace).patch(definition::change).delete(definition::delete);
    let of = |rest: &str| format!("{DEFINITIONS}{rest}");
    Router::new()
        .route(DEFINITIONS, list)
        .route(&of("{which}/"), one)
        .route(&of("{which}/run/"), post(run::run))
        .route(DEFINITIONS.trim_end_matches('/'), any(slash))
        .route(&of("{which}"), any(slash))
        .route(&of("{which}/run"), any(slash))
        .fallback(nothing)
        .layer(middleware::map_response(with_body))
        .layer(middleware::from_fn_with_state(shared.clone(), admit))
        .with_state(shared)
}

/// Lets in who shows the token, as long as there is room.
async fn admit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if !shared.token.is_shown(request.headers()) {
        return Refusal::Unknown.into_response();
    }
    let Ok(_place) = shared.room.clone().try_acquire_owned() else {
        let text = format!("{MAX_REQUESTS} requests are being answered: try it again later");
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    next.run(request).await
}

/// All paths end in a slash.
async fn slash(uri: Uri) -> Redirect {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Redirect::permanent(&format!("{}/{query}", uri.path()))
}

async fn nothing(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at `{}`: definitions are at `{DEFINITIONS}`", uri.path()),
    )
}

/// What the router itself refuses is JSON, too, with its headers as they are.
async fn with_body(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, _) = response.into_parts();
    let text = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            "the method is not allowed here: the header `Allow` has those that are".to_owned()
        }
        _ => status.canonical_reason().unwrap_or("the request failed").to_ascii_lowercase(),
    };
    let mut refused = Refusal::new(status, text).into_response();
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            refused.headers_mut().insert(name.clone(), value.clone());
        }
    }
    refused
}

/// The body of a request, no larger than this.
pub(crate) async fn read_body(request: Request, most: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is too large: {most} bytes are taken at most"))
    };
    if said_length(&request).is_some_and(|length| length > most) {
        discard(request).await;
        return Err(too_large());
    }
    axum::body::to_bytes(request.into_body(), most).await.map_err(|error| {
        let is_limit = std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        if is_limit { too_large() } else { Refusal::bad(format!("the body did not come: {error}")) }
    })
}

/// Takes what is left of a request that is refused, within bounds: a peer that is still writing when its connection ends does
/// not see the answer.
pub(crate) async fn discard(request: Request) {
    if said_length(&request).is_none_or(|length| length <= MAX_DISCARDED_BYTES) {
        let rest = axum::body::to_bytes(request.into_body(), MAX_DISCARDED_BYTES);
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
    }
}

fn said_length(request: &Request) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
