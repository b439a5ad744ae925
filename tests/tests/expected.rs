//! What models are for: the answers that `expected.json` and `greedy.json` beside them promise.

use serde_json::Value as Json;
use std::path::Path;

use lethe_engine::{DataType, Dim, Level, Numerics, Session, Tensor, Value};
use lethe_tests::{inputs, load, model_folder, tensors};

fn read_json(path: &Path) -> Json {
    let text = std::fs::read_to_string(path).expect("the file is beside the model");
    serde_json::from_str(&text).expect("it is JSON")
}

fn numbers(json: &Json) -> Vec<f64> {
    let array = json.as_array().expect("an array");
    array
        .iter()
        .map(|n| n.as_f64().expect("a number"))
        .collect()
}

fn session(folder: &Path) -> Session {
    load(folder, Level::best(), Numerics::Fast, 2)
}

/// Samples of a 16-bit mono sound file, from -1 to 1.
fn samples(path: &Path) -> Vec<f32> {
    let file = std::fs::read(path).expect("the sound is beside the model");
    let data = file
        .windows(4)
        .position(|w| w == b"data")
        .expect("a data chunk")
        + 8;
    let sample = |b: &[u8]| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0;
    file[data..].chunks_exact(2).map(sample).collect()
}

/// Runs a detector over a sound, chunk by chunk, carrying its state.
fn speech_probabilities(session: &Session, sound: &[f32], rate: i64, chunk: usize) -> Vec<f64> {
    let context = chunk / 8;
    let mut state = Value::from(Tensor::from_slice(&[2, 1, 128], &[0.0f32; 256]).expect("it fits"));
    let mut window = vec![0.0f32; context + chunk];
    let mut probabilities = Vec::new();
    for new in sound.chunks_exact(chunk) {
        window.copy_within(chunk.., 0);
        window[context..].copy_from_slice(new);
        let input = Tensor::from_slice(&[1, window.len()], &window).expect("it fits");
        let mut given = vec![("input", Value::from(input)), ("state", state)];
        if session.inputs().iter().any(|i| &*i.name == "sr") {
            given.push(("sr", Tensor::scalar(rate).into()));
        }
        let mut outputs = session.run(&given).expect("the model runs");
        state = outputs.remove(1).1;
        let output = outputs[0].1.as_tensor().expect("a tensor");
        probabilities.push(output.as_slice::<f32>().expect("floats")[0].into());
    }
    probabilities
}

fn assert_close(name: &str, found: &[f64], expected: &[f64], bound: f64) {
    assert!(
        found.len().abs_diff(expected.len()) <= 1,
        "{name}: {} for {}",
        found.len(),
        expected.len()
    );
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= bound,
            "{name}: {i}: expected {expected}, found {found}"
        );
    }
}

#[test]
fn silero_vad_hears_speech_chunk_by_chunk() {
    let Some(base) = model_folder("silero_vad") else {
        return;
    };
    let sound = samples(&base.join("speech.wav"));
    let half: Vec<f32> = sound.iter().copied().step_by(2).collect();
    let expected = read_json(&base.join("expected.json"));
    let session = session(&base);
    let found = speech_probabilities(&session, &sound, 16000, 512);
    assert_close("16 kHz", &found, &numbers(&expected["probabilities"]), 1e-3);
    let found = speech_probabilities(&session, &half, 8000, 256);
    assert_close(
        "8 kHz",
        &found,
        &numbers(&expected["probabilities_8k"]),
        1e-3,
    );
}

#[test]
fn other_builds_of_silero_vad_hear_the_same() {
    let Some(base) = model_folder("silero_vad") else {
        return;
    };
    let sound = samples(&base.join("speech.wav"));
    for name in [
        "silero_vad_op18",
        "silero_vad_half",
        "silero_vad_openvino_16k",
    ] {
        let Some(folder) = model_folder(name) else {
            continue;
        };
        let expected = read_json(&folder.join("expected.json"));
        let found = speech_probabilities(&session(&folder), &sound, 16000, 512);
        assert_close(name, &found, &numbers(&expected["probabilities"]), 1e-3);
    }
}

/// Mean of the token embeddings under the mask, of length 1.
fn pooled(hidden: &Tensor, mask: &[i64]) -> Vec<Vec<f64>> {
    let &[batch, sequence, width] = hidden.shape() else {
        panic!("three axes")
    };
    let hidden = hidden.as_slice::<f32>().expect("floats");
    (0..batch)
        .map(|b| {
            let mut sum = vec![0.0; width];
            for token in (0..sequence).filter(|t| mask[b * sequence + t] != 0) {
                let row = &hidden[(b * sequence + token) * width..][..width];
                sum.iter_mut()
                    .zip(row)
                    .for_each(|(s, &x)| *s += f64::from(x));
            }
            let norm = sum.iter().map(|s| s * s).sum::<f64>().sqrt();
            sum.iter().map(|s| s / norm).collect()
        })
        .collect()
}

fn embeddings(name: &str) -> Option<(Vec<Vec<f64>>, Vec<Vec<f64>>)> {
    let folder = model_folder(name)?;
    let given = tensors(&folder.join("test_data_set_2"), "input_");
    let outputs = session(&folder)
        .run(&inputs(&given))
        .expect("the model runs");
    let mask = given
        .iter()
        .find(|(name, _)| name == "attention_mask")
        .expect("it has a mask");
    let mask = mask.1.as_slice::<i64>().expect("integers");
    let found = pooled(outputs[0].1.as_tensor().expect("a tensor"), mask);
    let expected = read_json(&folder.join("expected.json"));
    let expected = expected["embeddings"]
        .as_array()
        .expect("an array")
        .iter()
        .map(numbers);
    Some((found, expected.collect()))
}

#[test]
fn minilm_embeds_sentences() {
    let Some((found, expected)) = embeddings("minilm_fp32") else {
        return;
    };
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_close("minilm_fp32", found, expected, 1e-4);
    }
}

#[test]
fn quantised_minilm_embeds_sentences_alike() {
    for name in ["minilm_int8", "minilm_qdq"] {
        let Some((found, expected)) = embeddings(name) else {
            continue;
        };
        assert_eq!(found.len(), expected.len(), "{name}");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let cosine: f64 = found.iter().zip(expected).map(|(f, e)| f * e).sum();
            assert!(
                cosine >= 0.999,
                "{name}: sentence {i} has the cosine {cosine}"
            );
        }
    }
}

/// Tokens that a language model with a key/value cache says after `prompt`, always the likeliest.
fn greedy_cached(session: &Session, prompt: &[i64], count: usize) -> Vec<i64> {
    let mut cache: Vec<(String, Value)> = Vec::new();
    for info in session
        .inputs()
        .iter()
        .filter(|i| i.name.starts_with("past_key_values"))
    {
        let dims = info.value_type.dims.as_ref().expect("its axes are known");
        // Batch of one, and nothing in the past.
        let size = |(axis, dim): (usize, &Dim)| dim.known().unwrap_or(usize::from(axis == 0));
        let shape: Vec<usize> = dims.iter().enumerate().map(size).collect();
        let data_type = info.value_type.data_type().unwrap_or(DataType::Float32);
        let empty = Tensor::from_bytes(data_type, &shape, Vec::new()).expect("it is empty");
        cache.push((info.name.to_string(), empty.into()));
    }
    let (mut said, mut next, mut past) = (Vec::new(), prompt.to_vec(), 0i64);
    while said.len() < count {
        let new = next.len();
        let total = past + new as i64;
        let row = |v: &[i64]| Value::from(Tensor::from_slice(&[1, v.len()], v).expect("it fits"));
        let positions: Vec<i64> = (past..total).collect();
        let mut given = vec![("input_ids", row(&next))];
        for (name, value) in [
            ("attention_mask", row(&vec![1; total as usize])),
            ("position_ids", row(&positions)),
        ] {
            if session.inputs().iter().any(|i| &*i.name == name) {
                given.push((name, value));
            }
        }
        given.extend(
            cache
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone())),
        );
        let mut outputs = session.run(&given).expect("the model runs");
        let token = likeliest(outputs.remove(0).1.as_tensor().expect("a tensor"));
        cache = outputs
            .into_iter()
            .map(|(name, value)| (name.replace("present", "past_key_values"), value))
            .collect();
        (past, next) = (total, vec![token]);
        said.push(token);
    }
    said
}

/// The same of a model without a cache: it reads everything again for each token.
fn greedy_plain(session: &Session, prompt: &[i64], count: usize) -> Vec<i64> {
    let mut all = prompt.to_vec();
    while all.len() < prompt.len() + count {
        let ids = Tensor::from_slice(&[1, all.len()], &all).expect("it fits");
        let outputs = session
            .run(&[("input_ids", ids.into())])
            .expect("the model runs");
        all.push(likeliest(outputs[0].1.as_tensor().expect("a tensor")));
    }
    all.split_off(prompt.len())
}

/// The token with the largest of the last position's logits.
fn likeliest(logits: &Tensor) -> i64 {
    let vocabulary = *logits.shape().last().expect("logits have axes");
    let logits = logits.as_slice::<f32>().expect("floats");
    let last = &logits[logits.len() - vocabulary..];
    let best = last.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("there is a vocabulary").0 as i64
}

#[test]
fn stories260k_tells_its_story_token_by_token() {
    let names = [
        "stories260k",
        "stories260k_kv",
        "stories260k_gqa",
        "stories260k_onnx_attention",
        "stories260k_int4",
    ];
    for name in names {
        let Some(folder) = model_folder(name) else {
            continue;
        };
        let greedy = read_json(&folder.join("greedy.json"));
        let ids =
            |key: &str| -> Vec<i64> { numbers(&greedy[key]).iter().map(|&n| n as i64).collect() };
        let (prompt, expected) = (ids("prompt_ids"), ids("generated_ids"));
        let session = session(&folder);
        let found = match name {
            "stories260k" => greedy_plain(&session, &prompt, expected.len()),
            _ => greedy_cached(&session, &prompt, expected.len()),
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn digits_of_the_samples_are_read() {
    let folder = model_folder("digits").expect("it is in the repository");
    let session = session(&folder);
    let request = read_json(&folder.join("samples/request.json"));
    let data: Vec<f32> = numbers(&request["inputs"][0]["data"])
        .iter()
        .map(|&x| x as f32)
        .collect();
    let image = Tensor::from_slice(&[1, 1, 28, 28], &data).expect("it fits");
    let outputs = session
        .run(&[("input", image.into())])
        .expect("the model runs");
    let logits = outputs[0]
        .1
        .as_tensor()
        .expect("a tensor")
        .as_slice::<f32>()
        .expect("floats");
    assert_eq!(logits.len(), 10);
    assert!(logits.iter().all(|x| x.is_finite()));
}
