//! Writes the service of the Open Inference Protocol over gRPC.

/// Methods of the Open Inference Protocol over gRPC, with the beginnings of their messages' names.
const INFERENCE_METHODS: [(&str, &str, &str); 11] = [
    ("ServerLive", "ServerLive", "ServerLive"),
    ("ServerReady", "ServerReady", "ServerReady"),
    ("ServerMetadata", "ServerMetadata", "ServerMetadata"),
    ("ModelReady", "Model", "ModelReady"),
    ("ModelMetadata", "Model", "ModelMetadata"),
    ("ModelConfig", "Model", "ModelConfig"),
    ("ModelInfer", "ModelInfer", "ModelInfer"),
    ("ModelStreamInfer", "ModelInfer", "ModelStreamInfer"),
    ("RepositoryIndex", "RepositoryIndex", "RepositoryIndex"),
    ("RepositoryModelLoad", "RepositoryModel", "RepositoryModel"),
    (
        "RepositoryModelUnload",
        "RepositoryModel",
        "RepositoryModel",
    ),
];

/// `ModelInfer` as a function is named: `model_infer`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (i, letter) in name.char_indices() {
        if i > 0 && letter.is_uppercase() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Writes the gRPC service into `OUT_DIR`; its messages are `serve/grpc/messages.rs`.
fn generate_inference_service() {
    use tonic_build::manual::{Builder, Method, Service};
    let mut service = Service::builder()
        .name("GRPCInferenceService")
        .package("inference");
    for (name, input, output) in INFERENCE_METHODS {
        let mut method = Method::builder()
            .name(snake_case(name))
            .route_name(name)
            .input_type(format!("super::super::messages::{input}Request"))
            .output_type(format!("super::super::messages::{output}Response"))
            .codec_path("tonic_prost::ProstCodec");
        if name.contains("Stream") {
            method = method.client_streaming().server_streaming();
        }
        service = service.method(method.build());
    }
    Builder::new()
        .build_client(false)
        .build_transport(false)
        .compile(&[service.build()]);
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    generate_inference_service();
}
