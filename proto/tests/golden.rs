//! Messages captured from a stock cluster, read and written again: the wire is theirs, byte for byte where bytes count.
//!
//! `golden/capture.py` makes the files. What would break these tests: a signature over other bytes, a key that is
//! decoded, a header, metadata or connection file of stock that is not understood, a date read or written differently.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use remuda_proto::connection::{ClientConnection, EngineConnection};
use remuda_proto::message::metadata::{ReplyEnvelope, TaskMetadata, replying_engine};
use remuda_proto::message::{self, content};
use remuda_proto::{
    Date, EngineUuid, Envelope, Frames, Header, Key, KeyError, MsgType, Packer, RemoteError, SeenSignatures, Status,
    VerifyError,
};
use serde_json::Value;

struct Sample {
    name: String,
    packer: Packer,
    key: String,
    scheme: String,
    frames: Frames,
    parts: Vec<Vec<u8>>,
    idents: usize,
    readable: Value,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(file: &str) -> Value {
    let path = folder().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// All captured messages, from every file that holds messages.
fn samples() -> Vec<Sample> {
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.strip_suffix(".json").is_some() && name != "dates.json" && name != "connection_files.json")
        .collect();
    files.sort();
    let mut samples = Vec::new();
    for file in files {
        for value in read(&file).as_array().unwrap() {
            let parts: Vec<Vec<u8>> = value["frames"]
                .as_array()
                .unwrap()
                .iter()
                .map(|frame| BASE64.decode(frame.as_str().unwrap()).unwrap())
                .collect();
            let text = |key: &str| value[key].as_str().unwrap().to_owned();
            samples.push(Sample {
                name: format!("{file}: {}", text("name")),
                packer: Packer::from_name(&text("packer")).unwrap(),
                key: text("key"),
                scheme: text("signature_scheme"),
                frames: Frames::from_parts(&parts).unwrap(),
                parts,
                idents: usize::try_from(value["idents"].as_u64().unwrap()).unwrap(),
                readable: value["readable"].clone(),
            });
        }
    }
    assert!(samples.len() > 100, "only {} samples", samples.len());
    samples
}

#[test]
fn frames_are_told_apart_and_written_as_they_came() {
    for sample in samples() {
        assert_eq!(sample.frames.idents.len(), sample.idents, "{}", sample.name);
        let written: Vec<Vec<u8>> = sample.frames.parts().map(<[u8]>::to_vec).collect();
        assert_eq!(written, sample.parts, "{}", sample.name);
    }
}

#[test]
fn signatures_of_stock_are_those_we_make_and_believe() {
    let mut seen = SeenSignatures::default();
    let mut checked = 0;
    for sample in samples() {
        let key = match Key::with_scheme(&sample.key, &sample.scheme) {
            Ok(key) => key,
            Err(KeyError::UnsupportedScheme(scheme)) => {
                assert_ne!(scheme, "hmac-sha256");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let body = &sample.frames.body;
        assert_eq!(key.verify(body), Ok(()), "{}", sample.name);
        let parts = [body.header(), body.parent_header(), body.metadata(), body.content()];
        assert_eq!(key.sign(parts), body.signature(), "{}", sample.name);
        if key.signs() {
            assert_eq!(Key::new(&format!("{} ", sample.key)).verify(body), Err(VerifyError::Invalid));
            if seen.check(body).is_ok() {
                assert_eq!(seen.check(body), Err(VerifyError::Duplicate));
            }
            checked += 1;
        }
    }
    assert!(checked > 100);
}

#[test]
fn every_part_reads_as_it_was_meant_with_both_packers() {
    for sample in samples() {
        let (packer, body) = (sample.packer, &sample.frames.body);
        for (part, name) in [
            (body.header(), "header"),
            (body.parent_header(), "parent_header"),
            (body.metadata(), "metadata"),
            (body.content(), "content"),
        ] {
            let value: Value = packer.unpack(part).unwrap_or_else(|error| panic!("{}: {name}: {error}", sample.name));
            assert_eq!(value, sample.readable[name], "{}: {name}", sample.name);
            // Packed again it may be formatted otherwise, but says the same.
            let again: Value = packer.unpack(&packer.pack(&value).unwrap()).unwrap();
            assert_eq!(again, value, "{}: {name}", sample.name);
        }
    }
}

#[test]
fn headers_and_envelopes_are_understood() {
    for sample in samples() {
        let (packer, body) = (sample.packer, &sample.frames.body);
        let envelope = Envelope::read(packer, body).unwrap();
        let header: Header = packer.unpack(body.header()).unwrap();
        assert_eq!(envelope.msg_id, header.msg_id);
        assert_eq!(envelope.msg_type.as_str(), sample.readable["header"]["msg_type"], "{}", sample.name);
        assert_eq!(serde_json::to_value(&header).unwrap(), sample.readable["header"], "{}", sample.name);
        let parent = message::parent_msg_id(packer, body).unwrap();
        assert_eq!(
            parent.as_ref().map(remuda_proto::MsgId::as_str),
            sample.readable["parent_header"]["msg_id"].as_str()
        );
        assert_eq!(Date::parse(&header.date).map(|date| date.to_string()), Some(header.date));
    }
}

#[test]
fn what_clients_ask_of_the_task_scheduler_is_understood() {
    let mut with_dependency = 0;
    for sample in samples() {
        let header: Header = sample.packer.unpack(sample.frames.body.header()).unwrap();
        let broadcast = sample.readable["metadata"]["is_broadcast"] == true;
        if header.msg_type != MsgType::ApplyRequest || broadcast {
            continue;
        }
        let metadata = TaskMetadata::read(sample.packer, &sample.frames.body)
            .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        let wire = &sample.readable["metadata"];
        assert_eq!(metadata.targets.len(), wire["targets"].as_array().map_or(0, Vec::len));
        assert_eq!(u64::from(metadata.retries()), wire["retries"].as_u64().unwrap_or(0));
        let seconds = metadata.timeout().map_or(0.0, |timeout| timeout.as_secs_f64());
        assert!((seconds - wire["timeout"].as_f64().unwrap_or(0.0)).abs() < 1e-9);
        with_dependency += usize::from(!metadata.after.is_empty() || !metadata.follow.is_empty());
    }
    assert!(with_dependency > 1, "no sample with a dependency");
}

#[test]
fn replies_and_errors_of_stock_are_understood() {
    let mut seen = [0; 3];
    for sample in samples() {
        let header: Header = sample.packer.unpack(sample.frames.body.header()).unwrap();
        if header.msg_type != MsgType::ApplyReply && header.msg_type != MsgType::ExecuteReply {
            continue;
        }
        let reply = ReplyEnvelope::read(sample.packer, &sample.frames.body).unwrap();
        let status = reply.status.unwrap_or_else(|| panic!("{}: no status", sample.name));
        assert_eq!(serde_json::to_value(status).unwrap(), sample.readable["content"]["status"], "{}", sample.name);
        let engine = replying_engine(sample.packer, &sample.frames.body).unwrap();
        assert_eq!(engine.as_ref().map(EngineUuid::as_str), sample.readable["metadata"]["engine"].as_str());
        seen[status as usize] += 1;
        if status == Status::Error {
            let error: RemoteError = sample.packer.unpack(sample.frames.body.content()).unwrap();
            assert_eq!(error.ename, sample.readable["content"]["ename"], "{}", sample.name);
            assert!(!error.traceback.is_empty(), "{}", sample.name);
            let unmet = error.ename == "UnmetDependency";
            assert_eq!(reply.dependencies_met, !unmet, "{}", sample.name);
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "a status never came: {seen:?}");
}

#[test]
fn contents_have_the_shapes_that_we_give_them() {
    let typed = |sample: &Sample, msg_type: &MsgType| -> Option<Value> {
        let (packer, content) = (sample.packer, sample.frames.body.content());
        macro_rules! again {
            ($type:ty) => {{
                let value: $type = packer.unpack(content).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
                Some(serde_json::to_value(&value).unwrap())
            }};
        }
        match msg_type {
            MsgType::ConnectionReply => again!(content::ConnectionReply),
            MsgType::RegistrationRequest => again!(content::RegistrationRequest),
            MsgType::RegistrationReply if sample.readable["content"]["status"] == "ok" => {
                again!(content::RegistrationReply)
            }
            MsgType::RegistrationNotification | MsgType::UnregistrationNotification => {
                again!(content::EngineNotification)
            }
            MsgType::UnregistrationRequest => again!(content::UnregistrationRequest),
            MsgType::Status => again!(content::ExecutionStatus),
            MsgType::Stream => again!(content::Stream),
            MsgType::ExecuteRequest => again!(content::ExecuteRequest),
            MsgType::AbortRequest => again!(content::AbortRequest),
            MsgType::HistoryReply => again!(content::HistoryReply),
            _ => None,
        }
    };
    let mut checked = 0;
    for sample in samples() {
        let header: Header = sample.packer.unpack(sample.frames.body.header()).unwrap();
        if let Some(value) = typed(&sample, &header.msg_type) {
            // An abort of one id stands without a list around it; all else is written as stock writes it.
            if header.msg_type != MsgType::AbortRequest {
                assert_eq!(value, sample.readable["content"], "{}", sample.name);
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} contents");
}

#[test]
fn dates_are_written_and_read_as_python_does() {
    let dates = read("dates.json");
    for pair in dates["written"].as_array().unwrap() {
        let (text, micros) = (pair["text"].as_str().unwrap(), pair["micros"].as_i64().unwrap());
        assert_eq!(Date(micros).to_string(), text);
        assert_eq!(Date::parse(text), Some(Date(micros)), "{text}");
    }
    for pair in dates["read"].as_array().unwrap() {
        let (text, micros) = (pair["text"].as_str().unwrap(), pair["micros"].as_i64().unwrap());
        assert_eq!(Date::parse(text), Some(Date(micros)), "{text}");
    }
}

#[test]
fn connection_files_of_stock_are_understood() {
    for file in read("connection_files.json").as_array().unwrap() {
        let client: ClientConnection = serde_json::from_str(file["client"].as_str().unwrap()).unwrap();
        let engine: EngineConnection = serde_json::from_str(file["engine"].as_str().unwrap()).unwrap();
        assert_eq!(client.common.key, engine.common.key);
        assert_eq!(client.common.registration, engine.common.registration);
        for (ours, stock) in [
            (serde_json::to_value(&client).unwrap(), &file["client"]),
            (serde_json::to_value(&engine).unwrap(), &file["engine"]),
        ] {
            let stock: Value = serde_json::from_str(stock.as_str().unwrap()).unwrap();
            assert_eq!(ours, stock, "{}", file["name"]);
        }
    }
}
