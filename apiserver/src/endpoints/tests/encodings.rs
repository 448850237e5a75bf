//! Lists and watches in protobuf, made where they are served.

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};

use super::*;
use crate::endpoints::negotiation::PrefersProtobuf;
use crate::protobuf;

const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

async fn ask(server: &Harness, uri: &str, accept: &str) -> Response {
    let mut request =
        http::Request::get(uri).header(ACCEPT, accept).body(full(Bytes::new())).expect("request");
    let messages = Arc::new(protobuf::Table::builtin());
    request.extensions_mut().insert(PrefersProtobuf { messages, gzip: false });
    server.send(request).await.expect("a known path")
}

#[tokio::test]
async fn a_list_in_protobuf_is_the_list_in_json() {
    let server = server();
    let table = protobuf::Table::builtin();
    for index in 0..300 {
        let mut map = config_map(&format!("m{index}"));
        map["data"]["long"] = json!("x".repeat(index * 4));
        server.post(MAPS, map).await;
    }
    for accept in ["application/json", PARTIAL] {
        for uri in [
            format!("{MAPS}?resourceVersion=0"),
            format!("{MAPS}?limit=3"),
            format!("{MAPS}?labelSelector=no"),
        ] {
            let json = server.raw(Method::GET, &uri, &[("accept", accept)], "").await;
            let json = json.into_body().collect().await.expect("a body").to_bytes();
            let response = ask(&server, &uri, accept).await;
            assert_eq!(response.headers()[CONTENT_TYPE], protobuf::MEDIA_TYPE);
            let length = response.headers()[CONTENT_LENGTH].clone();
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(length, body.len().to_string());
            assert!(body == protobuf::transcode(&table, &json).expect("a list"), "{uri} {accept}");
        }
    }
    let table_type = "application/json;as=Table;g=meta.k8s.io;v=v1";
    assert_eq!(ask(&server, MAPS, table_type).await.headers()[CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn watches_in_protobuf_frame_the_events_of_watches_in_json() {
    let server = server();
    let table = protobuf::Table::builtin();
    let uri = format!(
        "{MAPS}?watch=1&resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    server.post(MAPS, config_map("before")).await;
    for accept in ["application/json", PARTIAL] {
        let json = server.raw(Method::GET, &uri, &[("accept", accept)], "").await;
        let frames = [ask(&server, &uri, accept).await, ask(&server, &uri, accept).await];
        let name = format!("m{}", accept.len());
        server.post(MAPS, config_map(&name)).await;
        server.delete(&format!("{MAPS}/{name}"), Value::Null).await;
        let lines = until(json, |text| text.windows(9).any(|w| w == b"\"DELETED\"")).await;
        let mut expected = Vec::new();
        for line in String::from_utf8(lines).expect("text").lines() {
            let event: Value = serde_json::from_str(line).expect("an event");
            let object = &line[line.find("\"object\":").expect("an object") + 9..line.len() - 1];
            let name = event["type"].as_str().expect("a type");
            expected.extend(protobuf::watch_frame(&table, name, object.as_bytes()).expect("a frame"));
        }
        for response in frames {
            assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
            assert!(until(response, |bytes| bytes.len() >= expected.len()).await == expected, "{accept}");
        }
    }
}

/// What a response brings until it is enough.
async fn until(response: Response, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut body, mut out) = (response.into_body(), Vec::new());
    while !enough(&out) {
        let frame = body.frame().await.expect("the watch goes on").expect("a frame");
        out.extend_from_slice(&frame.into_data().expect("data"));
    }
    out
}
