//! Settings of `lethe serve`: one meaning as flag, environment variable and key of a TOML file.
//!
//! A flag wins over the environment, the environment over the file, the file over the default.
//! [`reference()`] writes the page of all settings, `docs/settings.md`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::loaded::Batching;
use lethe_sandbox::{GraphSettings, hex};

/// A setting of a type, or a switch.
macro_rules! settings {
    (
        values { $($env:literal $name:ident: $type:ty, $place:literal, $default:literal, $about:literal;)* }
        switches { $($switch_env:literal $switch:ident, $switch_default:literal, $switch_about:literal;)* }
    ) => {
        /// What was said of each setting; nothing where the default holds.
        #[derive(Debug, Clone, Default, clap::Args, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Given {
            $(
                #[doc = $about]
                #[arg(long, env = $env, value_name = $place, help = concat!($about, " [default: ", $default, "]"), hide_env_values = true)]
                pub $name: Option<$type>,
            )*
            $(
                #[doc = $switch_about]
                #[arg(long, env = $switch_env, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help = concat!($switch_about, " [default: ", $switch_default, "]"))]
                pub $switch: Option<bool>,
            )*
            /// What each tenant may use; in the file only.
            #[arg(skip)]
            pub tenants: Option<toml::Table>,
            /// SHA-256 of the file that was read.
            #[arg(skip)]
            #[serde(skip)]
            pub file_sha256: Option<String>,
        }

        impl Given {
            /// These settings, and those of `below` where nothing is said here.
            #[must_use]
            pub fn or(self, below: Self) -> Self {
                Self {
                    $($name: self.$name.or(below.$name),)*
                    $($switch: self.$switch.or(below.$switch),)*
                    tenants: self.tenants.or(below.tenants),
                    file_sha256: self.file_sha256.or(below.file_sha256),
                }
            }
        }

        /// Name, environment variable, default and meaning of every setting.
        const SETTINGS: &[(&str, &str, &str, &str)] = &[
            $((stringify!($name), $env, $default, $about),)*
            $((stringify!($switch), $switch_env, $switch_default, $switch_about),)*
        ];
    };
}

settings! {
    values {
        "LETHE_HOST" host: IpAddr, "ADDRESS", "127.0.0.1", "Address to listen on";
        "LETHE_PORT" port: u16, "PORT", "8080", "Port to listen on; 0 for any free one";
        "LETHE_UNIX_SOCKET" unix_socket: PathBuf, "PATH", "none", "Unix socket to listen on, too";
        "LETHE_MODELS" models: PathBuf, "DIR", "none", "Folder whose .onnx files, and folders with a model.onnx, are served";
        "LETHE_MAX_CONNECTIONS" max_connections: usize, "N", "1000", "Connections at the same time; more are answered 503";
        "LETHE_MAX_RUNNING" max_running: usize, "N", "twice the cores", "Requests that run at the same time; more wait";
        "LETHE_MAX_WAITING" max_waiting: usize, "N", "1024", "Requests that wait for their turn at the same time; more are told to come again (429)";
        "LETHE_MAX_WAITING_PER_TENANT" max_waiting_per_tenant: usize, "N", "256", "Of these, a tenant's own; a client with more connections than this and max_running needs more";
        "LETHE_BATCHED_MODELS" batched_models: String, "NAMES", "none", "Models whose inputs and outputs begin with an axis of independent rows, separated by commas, * for all: small requests of one tenant that wait for such a model at the same time are answered by one run";
        "LETHE_MAX_BATCH" max_batch: u32, "N", "16", "Requests that are answered by one run, at most";
        "LETHE_BATCH_WINDOW_MS" batch_window_ms: u64, "MS", "0", "Longest time that such a request waits for others before it queues for its turn";
        "LETHE_MAX_SESSIONS" max_sessions: usize, "N", "16", "Sessions at the same time: WebSockets whose requests share an instance; 0 for none";
        "LETHE_SESSION_IDLE_MS" session_idle_ms: u64, "MS", "60000", "Longest rest of a session between two requests";
        "LETHE_REQUEST_TIMEOUT_MS" request_timeout_ms: u64, "MS", "30000", "Longest time for a request, from its head to its answer";
        "LETHE_HEADER_TIMEOUT_MS" header_timeout_ms: u64, "MS", "10000", "Longest time for a request's head, for a connection between requests, and for a client that takes nothing of its answer";
        "LETHE_LOAD_TIMEOUT_MS" load_timeout_ms: u64, "MS", "600000", "Longest time to load a model: to read and hash its files, and for its first run";
        "LETHE_DRAIN_TIMEOUT_MS" drain_timeout_ms: u64, "MS", "30000", "Longest time that requests have to finish after SIGTERM";
        "LETHE_MAX_BODY_MB" max_body_mb: u64, "MIB", "64", "Largest body of a request, before and after decompression, and most bytes of a batch's answers together";
        "LETHE_MAX_BODIES_MB" max_bodies_mb: u64, "MIB", "1024", "Memory for the bodies and messages of all requests at once, and for the answers of batches and streams that are not yet sent; more are told to come again";
        "LETHE_MAX_MODEL_SIZE_MB" max_model_size_mb: u64, "MIB", "1024", "Largest model file, together with the files of weights that it names";
        "LETHE_MODEL_CACHE_SIZE" model_cache_size: usize, "N", "5", "Models loaded at the same time; the one that was not used longest goes first, never one in use";
        "LETHE_CPU_THREADS" cpu_threads: usize, "N", "1", "Threads that share the work of one request";
        "LETHE_GPU_MEMORY_MB" gpu_memory_mb: u64, "MIB", "2048", "Memory of the GPU that models and their requests may take, in all";
        "LETHE_CORS_ORIGINS" cors_origins: String, "ORIGINS", "none", "Origins of web pages that may call beside the server's own, over HTTP and WebSockets, separated by commas; * for any";
        "LETHE_ALLOWED_HOSTS" allowed_hosts: String, "NAMES", "none", "Names that the server may be called by (the header Host), each with its port or for any port, separated by commas; * for any. Addresses and localhost may always be used. Without it any name may be used, but on a loopback address none";
        "LETHE_KEYS" keys: PathBuf, "FILE", "none", "API keys, as `lethe keys` keeps them; with it requests need one";
        "LETHE_ADMIN_TENANTS" admin_tenants: String, "NAMES", "none", "Tenants that may load models and see everybody's figures, separated by commas";
        "LETHE_JWT_ISSUER" jwt_issuer: String, "ISSUER", "none", "Issuer of tokens that are taken instead of a key";
        "LETHE_JWT_AUDIENCE" jwt_audience: String, "AUDIENCE", "none", "Audience that tokens must name";
        "LETHE_JWT_JWKS" jwt_jwks: PathBuf, "FILE", "none", "Keys of the tokens' issuer (JSON Web Key Set)";
        "LETHE_TLS_CERT" tls_cert: PathBuf, "FILE", "none", "Certificate chain (PEM); read again when it changes";
        "LETHE_TLS_KEY" tls_key: PathBuf, "FILE", "none", "Private key of the certificate (PEM)";
        "LETHE_AUDIT" audit: PathBuf, "FILE", "none", "Audit trail that is written";
        "LETHE_SIGNING_KEY" signing_key: PathBuf, "FILE", "none", "Ed25519 key that signs checkpoints and receipts; made where there is none";
        "LETHE_LOG" log: String, "FILTER", "info", "What is logged, such as info or lethe_host=debug";
        "LETHE_LOG_FORMAT" log_format: LogFormat, "FORMAT", "text", "text or json";
        "LETHE_OTLP_ENDPOINT" otlp_endpoint: String, "URL", "none", "Collector that traces are sent to (OTLP over gRPC)";
    }
    switches {
        "LETHE_ENABLE_GPU" enable_gpu, "false", "Run on the GPU (only without isolation)";
        "LETHE_ENABLE_FUSION" enable_fusion, "true", "Rewrite graphs: fold, fuse";
        "LETHE_ENABLE_QUANTIZATION" enable_quantization, "false", "Keep the weights of products as bytes, on the CPU: a quarter of the memory, for answers that are approximate";
        "LETHE_ENABLE_UPLOAD" enable_upload, "false", "Take models over HTTP";
        "LETHE_CONFINE" confine, "true", "Give up rights that are not needed after start (Linux: seccomp, Landlock, no core dumps)";
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// A file of settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {reason}")]
    Io {
        /// Which one.
        path: String,
        /// Why.
        reason: String,
    },
    /// It is not TOML, or a value has another type.
    #[error("{path}: {reason}")]
    Syntax {
        /// Which one.
        path: String,
        /// Where and why.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{path}: unknown setting {key:?}{}", nearest.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default())]
    UnknownKey {
        /// Which file.
        path: String,
        /// The key.
        key: String,
        /// The known one that looks most like it.
        nearest: Option<&'static str>,
    },
    /// Settings that do not go together, or a value out of range.
    #[error("{0}")]
    Value(String),
}

/// Reads a file of settings.
///
/// # Errors
/// When it cannot be read, is not TOML, or has a key that does not exist.
pub fn read(path: &Path) -> Result<Given, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Io {
        path: name.clone(),
        reason: error.to_string(),
    })?;
    Ok(Given {
        file_sha256: Some(hex::encode(Sha256::digest(&text))),
        ..parse(&text, &name)?
    })
}

fn parse(text: &str, path: &str) -> Result<Given, ConfigError> {
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        path: path.into(),
        reason: error.to_string().trim().replace('\n', " "),
    };
    let table: toml::Table = text.parse().map_err(syntax)?;
    let known = || SETTINGS.iter().map(|setting| setting.0).chain(["tenants"]);
    if let Some(key) = table.keys().find(|key| !known().any(|name| name == *key)) {
        return Err(ConfigError::UnknownKey {
            path: path.into(),
            key: key.clone(),
            nearest: nearest(key, known()),
        });
    }
    toml::from_str(text).map_err(syntax)
}

/// The name that looks most like `key`, if one does.
fn nearest<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = names.map(|name| (strsim::jaro_winkler(key, name), name));
    let best = likeness.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then_some(best.1)
}

/// The page of all settings.
pub fn reference() -> String {
    let mut page = String::from(
        "# Settings of `lethe serve`\n\n\
         Made by `lethe serve --print-settings`. A flag wins over the environment, the environment over the \
         file given by `--config`, the file over the default. On SIGHUP the file, the keys and the \
         certificate are read again; host, port and sockets stay.\n\n\
         | file | flag | environment | default | |\n| --- | --- | --- | --- | --- |\n",
    );
    for (name, env, default, about) in SETTINGS {
        let flag = name.replace('_', "-");
        writeln!(
            page,
            "| `{name}` | `--{flag}` | `{env}` | {default} | {about} |"
        )
        .expect("writing to memory succeeds");
    }
    page.push_str(
        "\nThe file's table `tenants` says what each tenant may use: see [tenants.md](tenants.md). \
         How models run (`--isolation`, `--pure-wasm`, `--numerics`, `--kernels`) is said by the \
         flags that all commands share.\n",
    );
    page
}

/// Settings with every default in place.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is documented where it is given")]
pub struct ServeSettings {
    pub host: IpAddr,
    pub port: u16,
    pub unix_socket: Option<PathBuf>,
    pub max_connections: usize,
    pub max_running: usize,
    pub max_waiting: usize,
    pub max_waiting_per_tenant: usize,
    pub batching: Batching,
    pub batch_window: Duration,
    pub max_sessions: usize,
    pub session_idle: Duration,
    pub request_timeout: Duration,
    pub header_timeout: Duration,
    pub load_timeout: Duration,
    pub drain_timeout: Duration,
    pub max_body_bytes: u64,
    pub max_bodies_bytes: u64,
    pub max_model_bytes: u64,
    pub model_cache_size: usize,
    pub models: Option<PathBuf>,
    pub gpu_memory_bytes: u64,
    pub graph: GraphSettings,
    pub cors_origins: Vec<String>,
    pub allowed_hosts: Vec<String>,
    pub admin_tenants: Vec<String>,
    pub enable_upload: bool,
}

impl Given {
    /// With the defaults where nothing was said.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn with_defaults(&self) -> Result<ServeSettings, ConfigError> {
        let least_one = |name: &str, value: usize| match value {
            0 => Err(ConfigError::Value(format!(
                "{name}: expected 1 or more, found 0"
            ))),
            value => Ok(value),
        };
        let list = |text: &Option<String>| -> Vec<String> {
            let items = text.iter().flat_map(|text| text.split(',')).map(str::trim);
            items
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let ms = |value: Option<u64>, default| Duration::from_millis(value.unwrap_or(default));
        let mib =
            |value: Option<u64>, default: u64| value.unwrap_or(default).saturating_mul(1 << 20);
        let graph = GraphSettings {
            fusion: self.enable_fusion.unwrap_or(true),
            quantization: self.enable_quantization.unwrap_or(false),
        };
        if graph.quantization && !graph.fusion {
            let reason =
                "enable_quantization: rewrites graphs, which enable_fusion = false forbids";
            return Err(ConfigError::Value(reason.into()));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Ok(ServeSettings {
            host: self.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: self.port.unwrap_or(8080),
            unix_socket: self.unix_socket.clone(),
            max_connections: least_one("max_connections", self.max_connections.unwrap_or(1000))?,
            max_running: least_one("max_running", self.max_running.unwrap_or(2 * cores))?,
            max_waiting: self.max_waiting.unwrap_or(1024),
            max_waiting_per_tenant: self.max_waiting_per_tenant.unwrap_or(256),
            batching: Batching {
                models: list(&self.batched_models),
                most: self.max_batch.unwrap_or(16),
            },
            batch_window: ms(self.batch_window_ms, 0),
            max_sessions: self.max_sessions.unwrap_or(16),
            session_idle: ms(self.session_idle_ms, 60_000),
            request_timeout: ms(self.request_timeout_ms, 30_000),
            header_timeout: ms(self.header_timeout_ms, 10_000),
            load_timeout: ms(self.load_timeout_ms, 600_000),
            drain_timeout: ms(self.drain_timeout_ms, 30_000),
            max_body_bytes: mib(self.max_body_mb, 64),
            max_bodies_bytes: mib(self.max_bodies_mb, 1024),
            max_model_bytes: mib(self.max_model_size_mb, 1024),
            model_cache_size: least_one("model_cache_size", self.model_cache_size.unwrap_or(5))?,
            models: self.models.clone(),
            gpu_memory_bytes: mib(self.gpu_memory_mb, 2048),
            graph,
            cors_origins: list(&self.cors_origins),
            allowed_hosts: list(&self.allowed_hosts),
            admin_tenants: list(&self.admin_tenants),
            enable_upload: self.enable_upload.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_nearer_wins() {
        let file = parse("port = 9000\nmax_body_mb = 3\nenable_upload = true", "f").unwrap();
        let flags = Given {
            port: Some(9001),
            ..Given::default()
        };
        let settings = flags.or(file).with_defaults().unwrap();
        assert_eq!((settings.port, settings.max_body_bytes), (9001, 3 << 20));
        assert!(settings.enable_upload);
        assert_eq!(settings.max_connections, 1000);
    }

    #[test]
    fn bad_files_are_refused_with_a_hint() {
        let cases = [
            ("prot = 1", "did you mean \"port\"?"),
            ("max_conections = 1", "did you mean \"max_connections\"?"),
            ("zzz = 1", "unknown setting \"zzz\""),
            ("port = 70000", "port"),
            ("port = \"many\"", "port"),
            ("port =", "f: "),
        ];
        for (text, expected) in cases {
            let error = parse(text, "f").unwrap_err().to_string();
            assert!(
                error.contains(expected) && !error.contains('\n'),
                "{text}: {error}"
            );
        }
        for (text, expected) in [
            ("max_connections = 0", "max_connections"),
            (
                "enable_quantization = true\nenable_fusion = false",
                "enable_fusion = false",
            ),
        ] {
            let refused = parse(text, "f").unwrap().with_defaults().unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }

    #[test]
    fn the_page_of_settings_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference(),
            "lethe serve --print-settings > docs/settings.md"
        );
    }
}
