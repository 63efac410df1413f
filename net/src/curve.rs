//! CURVE: encryption and server authentication by libzmq, where it was built with it (`controller/app.py: enable_curve`).
//!
//! As in a stock cluster only the server is authenticated: whoever knows its public key, which both connection files hold,
//! may connect.

use std::fmt;

use remuda_proto::connection::Common;

use crate::profile::variable;

/// Characters of a key in Z85, 32 bytes.
const KEY_CHARS: usize = 40;
const Z85_SYMBOLS: &[u8] = b".-:+=^!/*?&<>()[]{}@%$#";

/// A key or a setting of CURVE that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CurveError {
    /// The libzmq that is linked has no CURVE.
    #[error(
        "libzmq {version}, which this program is built with, has no CURVE: build with the libzmq of the system \
         (docs/configuration.md, \"CURVE\"), or switch CURVE off"
    )]
    Missing {
        /// Which one is linked.
        version: String,
    },
    /// Text that is no key. Not shown: it may be a secret that was mistyped.
    #[error("{what} is not a CURVE key: one has {KEY_CHARS} characters of Z85, this has {chars}{rest}")]
    NotAKey {
        /// Where the text came from.
        what: String,
        /// How many characters it has.
        chars: usize,
        /// What else is wrong with it.
        rest: &'static str,
    },
    /// A secret key without its public key, or the other way round.
    #[error("of the CURVE keys only the {there} one is given: give both, or neither to have new ones made")]
    HalfAPair {
        /// Which one there is.
        there: &'static str,
    },
    /// libzmq could not make keys.
    #[error("cannot make a pair of CURVE keys")]
    Generate(#[source] zmq::Error),
}

/// Whether the libzmq that is linked has CURVE.
pub fn is_available() -> bool {
    zmq::has("curve") == Some(true)
}

fn available() -> Result<(), CurveError> {
    if is_available() { Ok(()) } else { Err(CurveError::Missing { version: crate::libzmq().0 }) }
}

/// A key, as 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct CurveKey([u8; 32]);

impl CurveKey {
    /// Reads a key in Z85. `what` names it in errors.
    ///
    /// # Errors
    /// When it is no key of 32 bytes.
    pub fn from_text(what: &str, text: &str) -> Result<Self, CurveError> {
        let chars = text.chars().count();
        let wrong = |rest| CurveError::NotAKey { what: what.to_owned(), chars, rest };
        if chars != KEY_CHARS {
            return Err(wrong(""));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || Z85_SYMBOLS.contains(&byte)) {
            return Err(wrong(", of which some are not Z85"));
        }
        // The characters are right, but a group of five may still stand for more than four bytes hold.
        let bytes = zmq::z85_decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let key = bytes.map(Self).filter(|key| key.to_text() == text);
        key.ok_or_else(|| wrong(", which stand for too large a number"))
    }

    /// The key in Z85.
    pub fn to_text(&self) -> String {
        zmq::z85_encode(&self.0).expect("32 bytes are a multiple of four")
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A public key and its secret one.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    public: CurveKey,
    secret: CurveKey,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public.to_text()).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// A new pair.
    ///
    /// # Errors
    /// Where libzmq has no CURVE.
    pub fn generate() -> Result<Self, CurveError> {
        available()?;
        let pair = zmq::CurveKeyPair::new().map_err(CurveError::Generate)?;
        Ok(Self { public: CurveKey(pair.public_key), secret: CurveKey(pair.secret_key) })
    }

    /// The pair given as Z85 texts, or a new one where neither is given.
    ///
    /// # Errors
    /// Where libzmq has no CURVE, a text is no key, or only one is given.
    pub fn given_or_new(public: Option<&str>, secret: Option<&str>) -> Result<Self, CurveError> {
        available()?;
        match (public, secret) {
            (Some(public), Some(secret)) => Ok(Self {
                public: CurveKey::from_text("the public key", public)?,
                secret: CurveKey::from_text("the secret key", secret)?,
            }),
            (None, None) => Self::generate(),
            (Some(_), None) => Err(CurveError::HalfAPair { there: "public" }),
            (None, Some(_)) => Err(CurveError::HalfAPair { there: "secret" }),
        }
    }

    /// The pair of the environment ([`variable::CURVE_PUBLICKEY`] and [`variable::CURVE_SECRETKEY`]), or a new one.
    fn of_environment() -> Result<Self, CurveError> {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let (public, secret) = (text(variable::CURVE_PUBLICKEY), text(variable::CURVE_SECRETKEY));
        Self::given_or_new(public.as_deref(), secret.as_deref())
    }

    /// The public key in Z85, as connection files have it.
    pub fn public_text(&self) -> String {
        self.public.to_text()
    }
}

/// How the sockets of a context are encrypted.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Not at all.
    #[default]
    Plain,
    /// As those that listen, with this pair.
    Server(KeyPair),
    /// As those that connect to the server with this public key.
    Client {
        /// The server's.
        server: ServerKey,
        /// Our own.
        pair: KeyPair,
    },
}

/// The public key of a server.
#[derive(Clone)]
pub struct ServerKey(CurveKey);

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_text())
    }
}

impl Security {
    /// What a connection file asks of those who connect: the key in it, else that of [`variable::CURVE_SERVERKEY`], else
    /// nothing (`client/client.py: Client.__init__`, `engine/app.py: IPEngine.load_connection_file`).
    ///
    /// # Errors
    /// Where the key is none, or libzmq has no CURVE.
    pub fn to_connect(common: &Common) -> Result<Self, CurveError> {
        let from_file = common.curve_serverkey.clone().filter(|key| !key.is_empty());
        let key = from_file.or_else(|| std::env::var(variable::CURVE_SERVERKEY).ok().filter(|key| !key.is_empty()));
        let Some(key) = key else { return Ok(Self::Plain) };
        available()?;
        let server = ServerKey(CurveKey::from_text("`curve_serverkey`", &key)?);
        Ok(Self::Client { server, pair: KeyPair::of_environment()? })
    }

    /// Sets the options of a socket.
    pub(crate) fn apply(&self, socket: &zmq::Socket) -> Result<(), zmq::Error> {
        match self {
            Self::Plain => Ok(()),
            Self::Server(pair) => {
                socket.set_curve_server(true)?;
                socket.set_curve_secretkey(pair.secret.as_bytes())
            }
            Self::Client { server, pair } => {
                socket.set_curve_serverkey(server.0.as_bytes())?;
                socket.set_curve_publickey(pair.public.as_bytes())?;
                socket.set_curve_secretkey(pair.secret.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Kind, Received, Socket};
    use remuda_proto::{DELIMITER, Frames};
    use std::time::Duration;

    /// The pair of the test of libzmq's own documentation.
    const PUBLIC: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    const SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

    #[test]
    fn a_key_comes_back_as_it_was_and_other_text_is_none() {
        assert_eq!(CurveKey::from_text("it", PUBLIC).ok().unwrap().to_text(), PUBLIC);
        for (text, reason) in
            [("short", "this has 5"), (&"~".repeat(40), "not Z85"), (&"#".repeat(40), "too large"), ("", "this has 0")]
        {
            let error = CurveKey::from_text("`it`", text).err().unwrap().to_string();
            assert!(error.contains("`it`") && error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let pair = KeyPair {
            public: CurveKey::from_text("", PUBLIC).ok().unwrap(),
            secret: CurveKey::from_text("", SECRET).ok().unwrap(),
        };
        let shown = format!("{pair:?} {:?}", Security::Server(pair.clone()));
        assert!(shown.contains(PUBLIC) && !shown.contains(SECRET), "{shown}");
        let error = CurveKey::from_text("the secret key", &SECRET[1..]).err().unwrap().to_string();
        assert!(!error.contains(&SECRET[1..]), "{error}");
    }

    #[test]
    fn without_curve_in_libzmq_the_error_says_where_to_get_it() {
        if is_available() {
            assert_ne!(KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
            assert!(matches!(
                KeyPair::given_or_new(Some(PUBLIC), None),
                Err(CurveError::HalfAPair { there: "public" })
            ));
        } else {
            let error = KeyPair::generate().unwrap_err().to_string();
            assert!(error.contains("docs/configuration.md"), "{error}");
        }
    }

    /// Method: a server and two clients, one of which has the wrong key of the server. The one with the right key sends
    /// last, so that what arrives first shows that the other's message was not let in.
    #[test]
    fn only_who_knows_the_servers_key_gets_through() {
        if !is_available() {
            eprintln!("skipped: this libzmq has no CURVE");
            return;
        }
        let server_pair = KeyPair::generate().unwrap();
        let context = Context::new();
        let server = context.clone().secured(Security::Server(server_pair.clone()));
        let mut router = Socket::builder(&server, Kind::Router).unwrap().bind("tcp://127.0.0.1:0").unwrap();
        let url = format!("tcp://127.0.0.1:{}", router.port().unwrap());
        let client = |key: &KeyPair, name: &str| {
            let server = ServerKey(key.public.clone());
            let secured = context.clone().secured(Security::Client { server, pair: KeyPair::generate().unwrap() });
            let builder = Socket::builder(&secured, Kind::Dealer).unwrap().identity(name.as_bytes()).unwrap();
            let socket = builder.linger(Duration::ZERO).unwrap().connect([&url]).unwrap();
            let message = Frames::from_parts([DELIMITER, b"", b"{}", b"{}", b"{}", b"{}"]).unwrap();
            assert!(socket.send_frames(&message));
            socket
        };
        let _stranger = client(&KeyPair::generate().unwrap(), "stranger");
        let plain = Socket::builder(&context, Kind::Dealer).unwrap().linger(Duration::ZERO).unwrap();
        let plain = plain.identity(b"plain").unwrap().connect([&url]).unwrap();
        assert!(plain.send_raw(&[b"hello"]));
        let _friend = client(&server_pair, "friend");
        assert!(router.wait(Duration::from_secs(10)), "nothing came");
        let Some(Received::Message(frames)) = router.receive() else { panic!("garbage") };
        assert_eq!(frames.idents[0].as_bytes(), b"friend");
        assert!(router.receive().is_none());
    }
}
