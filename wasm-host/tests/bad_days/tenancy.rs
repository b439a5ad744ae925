//! Whom a server serves, as its clients see it: keys, tokens, limits, figures.

use std::fs;
use std::path::PathBuf;

use lethe_host::tenants::KeyFile;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::models;
use crate::server::{Answer, JSON, Server, digits, digits_request, folder, request, serve};

/// A server with two tenants and an operator; the first may use digits only.
struct House {
    server: Server,
    keys: [String; 3],
    ids: [String; 3],
    folder: PathBuf,
    settings: PathBuf,
}

const SETTINGS: &str = "[tenants.overrides.first]\nmodels = [\"digits\"]\n";

fn house(name: &str, settings: &str, arguments: &[&str]) -> House {
    let folder = folder(name);
    let file = folder.join("keys");
    let made = ["first", "second", "operator"].map(|tenant| {
        let new = KeyFile::create(&file, tenant, None).unwrap();
        (new.key.to_string(), new.record.id.clone())
    });
    let path = folder.join("lethe.toml");
    fs::write(&path, settings).unwrap();
    let served = folder.join("models");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("plus.onnx"), models::plus(1.0)).unwrap();
    fs::copy(digits(), served.join("digits.onnx")).unwrap();
    let mut serve = serve();
    serve.args(["--admin-tenants", "operator", "--keys"]);
    serve.arg(&file).arg("--config").arg(&path);
    serve.arg("--models").arg(&served).args(arguments);
    House {
        server: Server::spawn(serve),
        keys: made.each_ref().map(|(key, _)| key.clone()),
        ids: made.map(|(_, id)| id),
        folder,
        settings: path,
    }
}

impl House {
    fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        let headers = [JSON, ("x-api-key", key)];
        self.server
            .send(&request(method, path, &headers, body.as_bytes()))
    }

    fn infer(&self, key: &str) -> Answer {
        self.ask(key, "POST", "/api/v1/infer", &digits_request())
    }
}

#[test]
fn requests_without_a_right_key_are_refused_everywhere_but_at_health() {
    let house = house("keys", SETTINGS, &[]);
    let [first, ..] = &house.keys;
    let wrong = format!("{}x", &first[..first.len() - 1]);
    let paths = [
        ("POST", "/api/v1/infer"),
        ("POST", "/api/v1/batch"),
        ("GET", "/api/v1/models"),
        ("GET", "/api/v1/stats"),
        ("GET", "/metrics"),
        ("GET", "/v2"),
        ("GET", "/v2/models/digits"),
        ("POST", "/v2/models/digits/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/api/v1/models/load"),
        ("GET", "/api/v1/stream"),
    ];
    for (method, path) in paths {
        for (key, code) in [
            (None, "LETHE-KEY-MISSING"),
            (Some(&*wrong), "LETHE-KEY-UNKNOWN"),
            (Some(""), "LETHE-KEY-UNKNOWN"),
        ] {
            let key = key.map(|key| ("x-api-key", key));
            let headers: Vec<_> = [JSON].into_iter().chain(key).collect();
            let answer = house.server.send(&request(method, path, &headers, b"{}"));
            assert_eq!(
                (answer.status, &*answer.code()),
                (401, code),
                "{path}: {}",
                answer.text()
            );
            let scheme = answer.header("www-authenticate");
            assert_eq!(scheme, Some("bearer realm=\"lethe\""), "{path}");
            assert!(
                !answer.text().contains(&wrong),
                "{path}: the key in an answer"
            );
        }
    }
    for path in ["/api/v1/health", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(house.server.get(path).status, 200, "{path}");
    }
    let bearer = format!("bearer {first}");
    for header in [("x-api-key", &**first), ("authorization", &*bearer)] {
        let body = digits_request();
        let answer = house
            .server
            .post("/api/v1/infer", &[JSON, header], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn control_is_for_operators_and_other_models_are_not_there() {
    let house = house("control", SETTINGS, &["--enable-upload"]);
    let [first, second, operator] = &house.keys;
    let body = r#"{"model":"digits"}"#;
    for (method, path) in [
        ("POST", "/api/v1/models/load"),
        ("POST", "/api/v1/models/unload"),
        ("GET", "/metrics"),
        ("POST", "/v2/repository/models/digits/load"),
        ("POST", "/v2/repository/models/digits/unload"),
        ("POST", "/v2/repository/models/nothing/load"),
        ("PUT", "/api/v1/models/new"),
    ] {
        let answer = house.ask(second, method, path, body);
        assert_eq!(
            (answer.status, &*answer.code()),
            (403, "LETHE-FORBIDDEN"),
            "{path}"
        );
    }
    assert_eq!(
        house
            .ask(operator, "POST", "/api/v1/models/load", body)
            .status,
        200
    );
    assert_eq!(house.ask(operator, "GET", "/metrics", "").status, 200);

    // A model that is there but not for this tenant, and one that is not there: the same words.
    let asked = |name: &str| {
        [
            house.ask(
                first,
                "POST",
                "/api/v1/infer",
                &models::numbers(name, &[1.0]),
            ),
            house.ask(
                first,
                "POST",
                &format!("/v2/models/{name}/infer"),
                &models::numbers(name, &[1.0]),
            ),
            house.ask(first, "GET", &format!("/v2/models/{name}"), ""),
            house.ask(first, "GET", &format!("/v2/models/{name}/ready"), ""),
            house.ask(first, "GET", &format!("/v2/models/{name}/config"), ""),
            house.ask(first, "GET", &format!("/v2/models/{name}/stats"), ""),
            house.ask(
                first,
                "POST",
                "/api/v1/batch",
                &format!(r#"{{"requests":[{}]}}"#, models::numbers(name, &[1.0])),
            ),
        ]
    };
    for (there, not_there) in asked("plus").iter().zip(asked("nope")) {
        assert_eq!(there.status, not_there.status);
        assert_eq!(there.text().replace("plus", "nope"), not_there.text());
        assert!(
            there.text().contains("LETHE-MODEL-UNKNOWN"),
            "{}",
            there.text()
        );
    }
    for path in ["/api/v1/models", "/v2/repository/index"] {
        let method = if path.ends_with("index") {
            "POST"
        } else {
            "GET"
        };
        let listed = house.ask(first, method, path, "").text();
        assert!(
            listed.contains("digits") && !listed.contains("plus"),
            "{listed}"
        );
    }
    let plus = house.ask(
        second,
        "POST",
        "/api/v1/infer",
        &models::numbers("plus", &[1.0]),
    );
    assert_eq!(plus.status, 200, "{}", plus.text());
}

#[test]
fn figures_are_a_tenants_own() {
    let house = house("figures", SETTINGS, &[]);
    let [first, second, operator] = &house.keys;
    assert_eq!(house.infer(first).status, 200);
    for _ in 0..2 {
        assert_eq!(house.infer(second).status, 200);
    }
    let seen = |key| house.ask(key, "GET", "/api/v1/stats", "").json();
    let own = seen(first);
    let pairs = own["by_model_and_tenant"].as_array().unwrap();
    assert_eq!(pairs.len(), 1, "{own}");
    assert_eq!(
        (&pairs[0]["tenant"], &pairs[0]["requests"]["good"]),
        (&json!("first"), &json!(1))
    );
    assert!(!own.to_string().contains("second"), "{own}");
    for field in ["total", "models", "pool", "memory"] {
        assert!(own[field].is_null(), "{field}: {own}");
    }
    let counted = house
        .ask(first, "GET", "/v2/models/digits/stats", "")
        .json();
    assert_eq!(counted["model_stats"][0]["inference_count"], 1, "{counted}");
    let all = seen(operator);
    assert_eq!(
        all["by_model_and_tenant"].as_array().unwrap().len(),
        2,
        "{all}"
    );
}

#[test]
fn a_revoked_key_is_refused_and_limits_are_read_again() {
    let house = house("revoked", SETTINGS, &[]);
    let [first, second, _] = &house.keys;
    assert_eq!(house.infer(first).status, 200);
    KeyFile::revoke(&house.folder.join("keys"), &house.ids[0]).unwrap();
    // The file is looked at every second.
    house.server.wait_for("the key to be refused", |_| {
        house.infer(first).status == 401
    });
    assert_eq!(house.infer(second).status, 200, "another tenant's");

    let strict = "[tenants.overrides.second]\nrequests_per_second = 0.01\nburst = 1\n";
    fs::write(&house.settings, strict).unwrap();
    house.server.signal("HUP");
    house
        .server
        .wait_for("the limit", |_| house.infer(second).status == 429);
    let answer = house.infer(second);
    assert_eq!(answer.code(), "LETHE-RATE");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    // One request in a hundred seconds, of which a few have passed.
    assert!((50..=100).contains(&seconds), "{seconds}");
    // What cannot be read changes nothing.
    fs::write(
        &house.settings,
        "[tenants.overrides.second]\nrequest_per_secnod = 1\n",
    )
    .unwrap();
    house.server.signal("HUP");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(house.infer(second).status, 429);
}

/// A token of this issuer, and what was signed.
fn token(key: &Ed25519KeyPair, claims: &Value) -> String {
    use base64::Engine;
    let text = |json: &Value| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!(
        "{}.{}",
        text(&json!({"alg": "EdDSA", "kid": "k"})),
        text(claims)
    );
    let signature = key.sign(signed.as_bytes());
    let signature = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(signature);
    format!("{signed}.{signature}")
}

#[test]
fn tokens_are_taken_from_their_issuer_alone_and_until_they_expire() {
    use base64::Engine;
    let issuer = || {
        let random = ring::rand::SystemRandom::new();
        let key = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap()
    };
    let set = |key: &Ed25519KeyPair| {
        let x = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(key.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string()
    };
    let (key, other) = (issuer(), issuer());
    let jwks = folder("tokens").join("jwks.json");
    fs::write(&jwks, set(&key)).unwrap();
    let arguments = [
        "--jwt-issuer",
        "https://i",
        "--jwt-audience",
        "lethe",
        "--jwt-jwks",
        jwks.to_str().unwrap(),
    ];
    let house = house("token-house", SETTINGS, &arguments);
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let claims = json!({"iss": "https://i", "aud": "lethe", "exp": now + 600, "tenant": "first"});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let status = |token: String| {
        let bearer = format!("Bearer {token}");
        let headers = [JSON, ("authorization", &*bearer)];
        let body = digits_request();
        house
            .server
            .post("/api/v1/infer", &headers, body.as_bytes())
            .status
    };
    assert_eq!(status(token(&key, &claims)), 200);
    assert_eq!(status(token(&other, &claims)), 401, "another's key");
    // Of all that the server does, only tokens and the times in the trail look at the calendar.
    assert_eq!(
        status(token(&key, &with("exp", json!(now - 600)))),
        401,
        "expired"
    );
    assert_eq!(
        status(token(&key, &with("nbf", json!(now + 600)))),
        401,
        "not yet"
    );
    assert_eq!(
        status(token(&key, &with("aud", json!("else")))),
        401,
        "for another"
    );
    assert_eq!(
        status(token(&key, &with("iss", json!("https://j")))),
        401,
        "of another"
    );
    let body = models::numbers("plus", &[1.0]);
    let bearer = format!("Bearer {}", token(&key, &claims));
    let answer = house.server.post(
        "/api/v1/infer",
        &[JSON, ("authorization", &bearer)],
        body.as_bytes(),
    );
    assert_eq!(
        answer.status, 404,
        "the tenant's limits hold for its tokens"
    );
    // The issuer exchanges its key; the server need not be told.
    fs::write(&jwks, set(&other)).unwrap();
    house
        .server
        .wait_for("the new key", |_| status(token(&other, &claims)) == 200);
    assert_eq!(status(token(&key, &claims)), 401, "the old key");
}
