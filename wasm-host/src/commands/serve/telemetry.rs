//! Logs on the standard error, and traces to a collector.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::serve::settings::{Given, LogFormat};

/// Traces that are sent when this is dropped at the latest.
#[derive(Debug)]
pub(super) struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            eprintln!("lethe: the last traces were not sent: {error}");
        }
    }
}

/// Starts logs and traces as the settings say. Needs the runtime that sends traces.
///
/// # Errors
/// A sentence that says which setting cannot be followed.
pub(super) fn start(given: &Given) -> Result<Telemetry, String> {
    let filter = given.log.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log: {error}"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match given.log_format.unwrap_or_default() {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let provider = given.otlp_endpoint.as_deref().map(|endpoint| {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| format!("otlp_endpoint: {error}"))?;
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let resource = Resource::builder().with_service_name("lethe").build();
        Ok::<_, String>(
            SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource)
                .build(),
        )
    });
    let provider = provider.transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let tracer = provider.tracer("lethe");
        tracing_opentelemetry::layer().with_tracer(tracer)
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(
            traces.with_filter(tracing_subscriber::filter::filter_fn(|about| {
                about.is_span() && about.target() == crate::serve::TRACES
            })),
        )
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(Telemetry(provider))
}
