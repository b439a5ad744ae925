use super::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

/// The modulus of an RSA key that was thrown away after it had signed [`RSA_TOKEN`].
const RSA_MODULUS: &str = "\
     1fIIWBTqvk4EnWu8qYX_NdObsTyejrGb5OJQ3J5agaT4Ou5xBuHembJYCK-rSlsI5N76oGWEHvG_-FnukBmAB4Qs\
     -QwBnnOGc3z9T80jL_U4uE49yXhM4eXNr8Y4-IoAAeKUerKrjjeXRx5TAx_hyY5sKvITJtxJdXr8bE3gdMdhXjHL\
     w40LhS5t9vUc_Dawt_0zslpIsgkWnhlcQld2sQHAhkczd2n0JqK9lKk3NZcrnonAB02iEp73gtaOXglZ4xdl3fNK\
     rwBk5zo2pVBZFg951-j9r0S4pUFR9HhiSfa4LHwvjY4i7_IHqUCR1bTN-4i3ESMyaTtdiIplITi_Uw";
/// A token of the issuer for `acme` that expires in 2033.
const RSA_TOKEN: &str = "\
     eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjo\
     ibGV0aGUiLCJleHAiOjIwMDAwMDAwMDAsInRlbmFudCI6ImFjbWUifQ.dICZZpWkEILIwJ_kKVwDJytl75xx0rgN\
     Ed5sCLVcA6kZ76NuOC6DvNPMul1hAfEDm74rumSNOUiZh-DJn8tS3hOO37wr6YZf8MJ6CUFKyunktHbXDO7Jtm2o\
     zQ_MLe7GdQx6Vi6v5GTda9iWOqZTAypXBsHN0OUpq0esDcX121rvyTBJAncVrf7_M9W-iPYbG09C3F5qxsJEnbRC\
     l94vgnjsiVEigaJv9tHTdpk1lRTyGtDyYXNras2APUAuqDUpnci506pZ2ZhVUEOwPMyDrZQR-8COZoBER2Y5pnEE\
     CiSC6SggJn3GFhLwU6H_wIlQk4bK3qO8Ney0LLIYI1Kt9Q";
const ISSUER: &str = "https://issuer.example";
/// A moment at which the tokens here are valid.
const NOW: u64 = 1_900_000_000;

/// Signs tokens as an issuer with an Ed25519 and a P-256 key, and verifies them.
struct Issuer {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    verifier: JwtVerifier,
}

fn text(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Issuer {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut JwtSettings)) -> Self {
        let random = SystemRandom::new();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed25519 = Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let p256 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(algorithm, p256.as_ref(), &random).unwrap();
        let point = p256.public_key().as_ref();
        let part = |range| URL_SAFE_NO_PAD.encode(&point[range]);
        let x = URL_SAFE_NO_PAD.encode(ed25519.public_key());
        let set = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x, "use": "sig"},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "x": part(1..33), "y": part(33..65)},
            {"kty": "RSA", "kid": "rsa", "alg": "RS256", "n": RSA_MODULUS, "e": "AQAB"},
        ]});
        let mut settings = JwtSettings {
            issuer: ISSUER.into(),
            audience: "lethe".into(),
            jwks: "unused".into(),
            tenant_claim: None,
        };
        change(&mut settings);
        let keys = read_keys(Path::new("jwks"), &set.to_string()).unwrap();
        Self {
            ed25519,
            p256,
            verifier: JwtVerifier::with(settings, keys),
        }
    }

    /// A token with this header and these claims, signed with the key that `kid` names.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", text(header), text(claims));
        let signature = match header["kid"].as_str() {
            Some("ec") => {
                let random = SystemRandom::new();
                let signature = self.p256.sign(&random, signed.as_bytes()).unwrap();
                signature.as_ref().to_vec()
            }
            _ => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn found(&self, token: &str) -> Result<Authenticated, JwtRefusal> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        self.verifier.authenticate_at(token, now)
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "lethe", "exp": NOW + 600, "tenant": "acme"})
}

fn ed() -> Value {
    json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"})
}

#[test]
fn tokens_of_the_issuer_name_the_tenant() {
    let issuer = Issuer::new();
    let ec = json!({"alg": "ES256", "kid": "ec"});
    let cases = [
        ("EdDSA", issuer.sign(&ed(), &claims()), "jwt:ed"),
        ("ES256", issuer.sign(&ec, &claims()), "jwt:ec"),
        ("RS256", RSA_TOKEN.into(), "jwt:rsa"),
    ];
    for (name, token, key_id) in cases {
        let found = issuer
            .found(&token)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((&*found.tenant, &*found.key_id), ("acme", key_id));
        // Any changed character of the token is found.
        for i in 0..token.len() - 1 {
            let mut changed = token.clone().into_bytes();
            changed[i] = if changed[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(issuer.found(&changed).is_err(), "{name}, character {i}");
        }
    }
}

#[test]
fn the_header_does_not_choose_the_algorithm() {
    let issuer = Issuer::new();
    let claims = claims();
    for alg in ["none", "None", "", "HS256", "ES256", "RS256"] {
        let header = json!({"alg": alg, "kid": "ed"});
        let token = issuer.sign(&header, &claims);
        assert_eq!(issuer.found(&token), Err(JwtRefusal::Algorithm), "{alg}");
        let unsigned = format!("{}.{}.", text(&header), text(&claims));
        assert_eq!(issuer.found(&unsigned), Err(JwtRefusal::Algorithm), "{alg}");
    }
    // The old confusion: a public key, which everybody knows, as the secret of an HMAC.
    let header = json!({"alg": "HS256", "kid": "rsa"});
    let signed = format!("{}.{}", text(&header), text(&claims));
    for secret in [
        RSA_MODULUS.as_bytes(),
        &URL_SAFE_NO_PAD.decode(RSA_MODULUS).unwrap(),
    ] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
        let token = format!("{signed}.{tag}");
        assert_eq!(issuer.found(&token), Err(JwtRefusal::Algorithm));
    }
    let empty = format!("{}.{}.", text(&ed()), text(&claims));
    assert_eq!(issuer.found(&empty), Err(JwtRefusal::Signature));
}

#[test]
fn claims_must_be_right() {
    use JwtRefusal as R;
    let issuer = Issuer::new();
    let other = json!("other");
    let cases = [
        ("iss", other.clone(), Err(R::Issuer)),
        ("iss", json!([ISSUER]), Err(R::Claim("iss"))),
        ("iss", Value::Null, Err(R::Claim("iss"))),
        ("aud", other.clone(), Err(R::Audience)),
        ("aud", json!(["other", "lethe"]), Ok("acme")),
        ("aud", json!(["other"]), Err(R::Audience)),
        ("aud", Value::Null, Err(R::Claim("aud"))),
        ("exp", json!(NOW - 29), Ok("acme")),
        ("exp", json!(NOW - 30), Err(R::Expired)),
        ("exp", json!(0), Err(R::Expired)),
        ("exp", json!(-1.5), Err(R::Expired)),
        ("exp", json!((NOW + 9).to_string()), Err(R::Claim("exp"))),
        ("exp", Value::Null, Err(R::Claim("exp"))),
        ("nbf", json!(NOW + 30), Ok("acme")),
        ("nbf", json!(NOW + 31), Err(R::NotYet)),
        ("nbf", json!((NOW + 999).to_string()), Err(R::Claim("nbf"))),
        ("tenant", other, Ok("other")),
        ("tenant", json!(7), Err(R::Claim("tenant"))),
        ("tenant", json!("a b"), Err(R::TenantName)),
        ("tenant", json!(""), Err(R::TenantName)),
    ];
    for (claim, value, expected) in cases {
        let mut claims = claims();
        claims[claim] = value.clone();
        let found = issuer.found(&issuer.sign(&ed(), &claims));
        let found = found.as_ref().map(|found| &*found.tenant);
        assert_eq!(found.map_err(|e| *e), expected, "{claim} = {value}");
    }
}

#[test]
fn the_tenant_is_in_the_claim_that_was_set() {
    let mut claims = claims();
    claims["sub"] = json!("subject");
    claims["org"] = json!("clinic");
    let tenant = |issuer: &Issuer, claims: &Value| {
        issuer
            .found(&issuer.sign(&ed(), claims))
            .map(|found| found.tenant)
    };
    let usual = Issuer::new();
    assert_eq!(tenant(&usual, &claims).unwrap(), "acme");
    claims.as_object_mut().unwrap().remove("tenant");
    assert_eq!(tenant(&usual, &claims).unwrap(), "subject");
    let org = Issuer::with(|settings| settings.tenant_claim = Some("org".into()));
    assert_eq!(tenant(&org, &claims).unwrap(), "clinic");
    claims.as_object_mut().unwrap().remove("org");
    // `sub` is not looked at where a claim was set.
    assert_eq!(tenant(&org, &claims), Err(JwtRefusal::Claim("tenant")));
}

#[test]
fn what_is_no_token_is_refused() {
    use JwtRefusal as R;
    let issuer = Issuer::new();
    let with = |key: &str, value| {
        let mut header = ed();
        header[key] = value;
        issuer.sign(&header, &claims())
    };
    let token = issuer.sign(&ed(), &claims());
    let cases = [
        ("", R::Malformed),
        ("..", R::Malformed),
        ("a.b.c", R::Malformed),
        (&format!("{token}.x"), R::Malformed),
        (&format!("x.{token}"), R::Malformed),
        (&format!("{token}="), R::Signature),
        (&"x".repeat(TOKEN_BYTES + 1), R::Malformed),
        (&with("crit", json!(["b64"])), R::Critical),
        (&with("kid", json!("gone")), R::UnknownKey),
        (&with("kid", json!(1)), R::Malformed),
        (&with("alg", Value::Null), R::Malformed),
        // Without `kid` there is no telling which of several keys.
        (
            &issuer.sign(&json!({"alg": "EdDSA"}), &claims()),
            R::UnknownKey,
        ),
    ];
    for (token, expected) in cases {
        assert_eq!(issuer.found(token), Err(expected), "{token}");
    }
    let another = Issuer::new();
    assert_eq!(another.found(&token), Err(R::Signature));
}

#[test]
fn refusals_do_not_hold_the_token() {
    let issuer = Issuer::new();
    let token = issuer.sign(&ed(), &json!({"iss": "s3cret", "aud": "s3cret"}));
    let refusal = issuer.found(&token).unwrap_err();
    assert!(!format!("{refusal} {refusal:?}").contains("s3cret"));
}

#[test]
fn key_sets_hold_public_keys_only() {
    let folder = tempfile::tempdir().unwrap();
    let jwks = folder.path().join("jwks.json");
    let settings = || JwtSettings {
        issuer: ISSUER.into(),
        audience: "lethe".into(),
        jwks: jwks.clone(),
        tenant_claim: None,
    };
    let missing = JwtVerifier::open(settings()).unwrap_err();
    assert!(matches!(missing, JwksError::Io { .. }));
    let rsa = json!({"kty": "RSA", "kid": "a", "n": RSA_MODULUS, "e": "AQAB"});
    let with = |key: &str, value: Value| {
        let mut rsa = rsa.clone();
        rsa[key] = value;
        json!({"keys": [rsa]}).to_string()
    };
    let cases = [
        ("", "is no JWK set"),
        ("{\"keys\": []}", "no key for signatures"),
        (&with("use", json!("enc")), "no key for signatures"),
        (&with("d", json!("AQAB")), "private key"),
        (&with("alg", json!("HS256")), "none of RSA's"),
        (&with("n", json!("?")), "malformed"),
        (&json!({"keys": [rsa, rsa]}).to_string(), "same kid"),
        (
            r#"{"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS256"}]}"#,
            "shared secret",
        ),
        (
            r#"{"keys": [{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}]}"#,
            "P-256",
        ),
        (
            r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "ES256", "x": "AA"}]}"#,
            "EdDSA",
        ),
        (r#"{"keys": [{"kty": "new"}]}"#, "no JWK"),
    ];
    for (text, said) in cases {
        fs::write(&jwks, text).unwrap();
        let error = JwtVerifier::open(settings()).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    fs::write(&jwks, json!({"keys": [rsa]}).to_string()).unwrap();
    let verifier = JwtVerifier::open(settings()).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let found = |token| {
        verifier
            .authenticate_at(token, now)
            .map(|found| found.tenant)
    };
    // The set has the key under another name.
    assert_eq!(found(RSA_TOKEN), Err(JwtRefusal::UnknownKey));
    assert!(!verifier.refresh().unwrap());
    fs::write(&jwks, with("kid", json!("rsa"))).unwrap();
    assert!(verifier.refresh().unwrap());
    assert_eq!(found(RSA_TOKEN).unwrap(), "acme");
    fs::write(&jwks, "{").unwrap();
    assert!(verifier.refresh().is_err());
    assert_eq!(
        found(RSA_TOKEN).unwrap(),
        "acme",
        "the keys read before stay"
    );
}
