//! Traces: a collector gets them, and a server goes on where there is none.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::server::{JSON, Server, digits, digits_request, serve};

/// What a collector was sent.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Sent {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sent {
    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let resources = requests.iter().flat_map(|r| &r.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

/// A collector (OTLP over gRPC) that ends when this is dropped.
struct Collector {
    sent: Sent,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let (sent, address) = (Sent::default(), listener.local_addr().unwrap());
        let service = TraceServiceServer::new(sent.clone());
        let router = axum::Router::new().fallback_service(service);
        runtime.spawn(async { axum::serve(listener, router).await });
        Self {
            sent,
            address,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

#[test]
fn a_collector_gets_traces_without_payloads_and_is_not_missed() {
    let collector = Collector::start();
    let mut command = serve();
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
    command.arg("--otlp-endpoint");
    command.arg(format!("http://{}", collector.address));
    let mut server = Server::spawn({
        command.arg(digits());
        command
    });
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let context = format!("00-{trace}-{parent}-01");
    let headers = [JSON, ("traceparent", &*context)];
    let path = "/api/v1/infer?model=digits&note=canary-path";
    let body = digits_request().replacen('{', "{\"id\":\"canary-body\",", 1);
    let answer = server.post(path, &headers, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = &collector.sent;
    server.wait_for("a span", |_| !sent.spans().is_empty());
    let spans = sent.spans();
    let [span] = &spans[..] else {
        panic!("one request, {spans:?}");
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        (&*hex(&span.trace_id), &*hex(&span.parent_span_id)),
        (trace, parent)
    );
    assert_eq!(
        (&*span.name, span.kind),
        ("request", SpanKind::Server as i32)
    );
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    let all = format!("{:?}", sent.0.lock().unwrap());
    for expected in [
        "service.name",
        "\"lethe\"",
        "http.response.status_code",
        "IntValue(200)",
    ] {
        assert!(all.contains(expected), "{expected}: {all}");
    }
    assert!(!all.contains("canary"), "{all}");

    drop(collector);
    for _ in 0..20 {
        server.check("a collector that is gone");
    }
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}
