//! The fields of a task record that can be asked for (`controller/hub.py: empty_record`).

/// What the values of a field are, besides null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Dates.
    Date,
    /// Anything that JSON can hold.
    Json,
    /// A list of buffers, of which a query can only know whether it is there and whether it is empty.
    Buffers,
}

macro_rules! fields {
    ($($variant:ident = $text:literal $kind:ident $doc:literal,)*) => {
        /// A field of a task record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Field {
            $(#[doc = $doc] $variant,)*
        }

        impl Field {
            /// All fields, in the order of stock's records; `display_data` and `state`, which stock does not declare, are the
            /// last.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// What its values are.
            pub fn kind(self) -> Kind {
                match self {
                    $(Self::$variant => Kind::$kind,)*
                }
            }

            /// The field of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    MsgId = "msg_id" Text "Names the request.",
    Header = "header" Json "The header of the request.",
    Metadata = "metadata" Json "The metadata of the request.",
    Content = "content" Json "The content of the request.",
    Buffers = "buffers" Buffers "The buffers of the request.",
    Submitted = "submitted" Date "When the client made the request, by its own clock.",
    ClientUuid = "client_uuid" Text "The session of the client.",
    EngineUuid = "engine_uuid" Text "The engine that has or had it.",
    Started = "started" Date "When the engine began, by its own clock.",
    Completed = "completed" Date "When the engine made the reply, by its own clock.",
    Resubmitted = "resubmitted" Text "The request that repeats it.",
    Received = "received" Date "When the hub learned of the reply.",
    ResultHeader = "result_header" Json "The header of the reply.",
    ResultMetadata = "result_metadata" Json "The metadata of the reply.",
    ResultContent = "result_content" Json "The content of the reply.",
    ResultBuffers = "result_buffers" Buffers "The buffers of the reply.",
    Queue = "queue" Text "The scheduler that took it.",
    ExecuteInput = "execute_input" Text "The code that ran.",
    ExecuteResult = "execute_result" Json "The last result of an expression.",
    Error = "error" Json "The last error that was published.",
    Stdout = "stdout" Text "All text on stdout.",
    Stderr = "stderr" Text "All text on stderr.",
    Label = "label" Json "A word of the client's own.",
    DisplayData = "display_data" Json "The last thing displayed.",
    State = "state" Text "Where it is on its way: waiting, running, lost, or how it ended. Shown only to who names it.",
}
