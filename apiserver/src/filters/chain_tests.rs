use http::Method;
use http_body_util::BodyExt;

use super::super::InFlight;
use super::*;
use crate::authentication::{Authentication, AuthenticationError, TokenAuthenticator};
use crate::authorization::{Rules, Verdict};
use crate::request::{UserInfo, empty, full};

struct TestTokens;

#[async_trait]
impl TokenAuthenticator for TestTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        _: &[String],
    ) -> Result<Option<Authentication>, AuthenticationError> {
        let user = UserInfo { name: token.into(), ..Default::default() };
        Ok((token != "wrong").then_some(Authentication { user, audiences: vec![] }))
    }
}

/// Allows everyone who authenticated.
struct TestAuthorizer;

#[async_trait]
impl Authorizer for TestAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Verdict {
        if attributes.user.in_group("system:authenticated") {
            Verdict::allow("")
        } else {
            Verdict::no_opinion("")
        }
    }

    fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

/// Says who asked, panics or hangs, as the resource says.
struct Stub;

#[async_trait]
impl Handler for Stub {
    async fn handle(&self, mut request: ApiRequest) -> Response {
        if request.ctx.info.subresource == "exec" {
            return echo(&mut request);
        }
        request.ctx.warn("old \"thing\"");
        match request.ctx.info.resource.as_str() {
            "panics" => panic!("on purpose"),
            "hangs" => std::future::pending().await,
            _ => Response::new(full(request.ctx.user.name.clone())),
        }
    }
}

/// Switches protocols and sends back what comes.
fn echo(request: &mut ApiRequest) -> Response {
    let upgrade = request.parts.extensions.remove::<hyper::upgrade::OnUpgrade>().unwrap();
    tokio::spawn(async move {
        let stream = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
        let (mut from, mut to) = tokio::io::split(stream);
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
    response
}

fn chain() -> Arc<Chain> {
    let metrics = Arc::new(Metrics::new(prometheus::Registry::new(), |_| true).unwrap());
    Arc::new(Chain {
        authenticator: RequestAuthenticator {
            request_header: None,
            client_ca: None,
            tokens: Arc::new(TestTokens),
            anonymous: true,
        },
        authorizer: Arc::new(TestAuthorizer),
        limits: Limits::Plain(InFlight::new(1, 1, &metrics)),
        request_timeout: Duration::from_secs(60),
        metrics,
        handler: Arc::new(Stub),
        stop: CancellationToken::new(),
    })
}

async fn ask(chain: &Arc<Chain>, method: Method, uri: &str, token: &str) -> (Response, String) {
    let mut request = Request::new(empty());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    if !token.is_empty() {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let connection =
        Connection { remote: "127.0.0.1:1".parse().unwrap(), credentials: Credentials::default() };
    let response = chain.serve(request, &connection).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, empty()), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_request_passes_with_ids_and_warnings() {
    let (response, body) = ask(&chain(), Method::GET, "/api/v1/pods", "jane").await;
    assert_eq!((response.status().as_u16(), body.as_str()), (200, "jane"));
    assert_eq!(response.headers()["warning"], r#"299 - "old \"thing\"""#);
    assert_eq!(response.headers()["cache-control"], "no-cache, private");
    assert_eq!(response.headers()["audit-id"].len(), 36);
}

#[tokio::test]
async fn strangers_are_refused_in_upstreams_words() {
    let chain = chain();
    let (response, body) = ask(&chain, Method::GET, "/api/v1/namespaces/a/pods", "").await;
    assert_eq!(response.status(), 403);
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!(
        status.message,
        r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "a""#
    );
    let (response, body) = ask(&chain, Method::GET, "/api/v1/pods", "wrong").await;
    assert_eq!(response.status(), 401);
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((status.message.as_str(), status.reason.as_str()), ("Unauthorized", "Unauthorized"));
}

#[tokio::test]
async fn a_stream_passes_the_chain() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (mut client, server) = tokio::io::duplex(4096);
    let chain = chain();
    tokio::spawn(async move {
        let connection =
            Connection { remote: "127.0.0.1:1".parse().unwrap(), credentials: Credentials::default() };
        let connection = Arc::new(connection);
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (chain, connection) = (Arc::clone(&chain), Arc::clone(&connection));
            async move {
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                Ok::<_, std::convert::Infallible>(chain.serve(request, &connection).await)
            }
        });
        let io = hyper_util::rt::TokioIo::new(server);
        let http = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        http.serve_connection_with_upgrades(io, service).await.unwrap();
    });
    let head = "GET /api/v1/namespaces/a/pods/p/exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
        Upgrade: echo\r\nAuthorization: Bearer jane\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    client.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    client.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let chain = chain();
    for method in [Method::GET, Method::POST] {
        let (response, _) = ask(&chain, method, "/api/v1/panics", "jane").await;
        assert_eq!(response.status(), 500);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_ends_and_a_full_server_says_so() {
    let chain = chain();
    let slow = tokio::spawn({
        let chain = Arc::clone(&chain);
        async move { ask(&chain, Method::GET, "/api/v1/hangs/x?timeout=5s", "jane").await }
    });
    while chain.metrics.current_inflight_requests.with_label_values(&["readOnly"]).get() == 0 {
        tokio::task::yield_now().await;
    }
    let (response, body) = ask(&chain, Method::GET, "/api/v1/pods", "jane").await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(body, "Too many requests, please try again later.\n");
    let (response, body) = slow.await.unwrap();
    assert_eq!(response.status(), 504);
    assert!(body.contains("Timeout: request did not complete within the allotted timeout"), "{body}");
    let (response, _) = ask(&chain, Method::GET, "/api/v1/pods?timeout=x", "jane").await;
    assert_eq!(response.status(), 400);
}

#[test]
fn metrics_carry_the_stable_names_and_labels() {
    let metrics = Metrics::new(prometheus::Registry::new(), |_| true).unwrap();
    let info = super::request_info::parse(&Method::GET, "/api/v1/namespaces/a/pods", "").unwrap();
    let response = Response::new(full("12345"));
    let uri = "/api/v1/namespaces/a/pods".parse().unwrap();
    metrics.observe(&info, &Method::GET, &uri, "kubectl/v1", &response, Duration::from_millis(3));
    let text = String::from_utf8(metrics.render()).unwrap();
    let wanted = r#"apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",system_client="",verb="LIST",version="v1"} 1"#;
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("apiserver_response_sizes_sum"));
    assert!(text.contains("process_resident_memory_bytes"));
}
