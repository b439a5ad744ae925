//! What a file declares of values, which need not be so.

use super::case::Expect::{Made, Never};
use super::case::{BASE, Case, check_all, same, wave};
use crate::graph::attributes::Attribute;
use crate::onnx::proto;
use crate::onnx::writer::ModelWriter;
use crate::session::{Session, SessionOptions};
use crate::tensor::{DataType, Tensor, Value};

#[test]
fn what_a_file_says_of_inner_values_proves_nothing() {
    check_all(&[
        Case {
            name: "the last axis",
            inputs: "x:a,b,c",
            constants: "s:4 b:4",
            nodes: "r=Squeeze x; u=Unsqueeze r [-1]; q=Mul u u; v=ReduceMean q axes=-1; \
                    e=Add v 0.00001; t=Sqrt e; n=Div u t; y=Mul n s",
            stale: "u:n,4",
            runs: "2,3,1|1,2,1",
            expect: Never("RMSNormalization"),
            ..BASE
        },
        Case {
            name: "the number of axes",
            inputs: "x:a,b,c",
            nodes: "r=Squeeze x; d=Div r 1.4142135; e=Erf d; a=Add e 1.0; m=Mul r a; y=Mul m [0.5]",
            stale: "r:n,4",
            runs: "1,1,1|1,3,1",
            expect: Never("Gelu"),
            ..BASE
        },
        Case {
            name: "the axes of attention",
            inputs: "x:a,b,c,d,e k:1,1,t,f",
            nodes: "q=Squeeze x; t=Transpose k perm=0,1,3,2; p=MatMul q t; w=Softmax p axis=-1; \
                    y=MatMul w k",
            stale: "q:1,1,2,3 p:1,1,2,4 w:1,1,2,4",
            runs: "1,1,2,2,3 1,1,4,3",
            expect: Never("FusedAttention"),
            ..BASE
        },
        Case {
            name: "the residual of a product",
            inputs: "x:a,b,c r:n,4",
            constants: "w:4,4",
            nodes: "u=Squeeze x; p=MatMul u w; y=Add p r",
            stale: "u:n,4",
            runs: "1,3,4 3,4|1,3,4 1,4|2,3,4 3,4|1,1,4 3,4",
            expect: Made("FusedMatMul"),
            ..BASE
        },
    ]);
}

/// A loop's values may change their sizes from round to round, whatever its body declares.
#[test]
fn what_a_body_declares_of_its_inputs_proves_nothing() {
    let mut body = Case {
        inputs: "s:2,4",
        nodes: "q=Mul s s; v=ReduceMean q axes=-1; e=Add v 0.00001; t=Sqrt e; n=Div s t; y=Mul n scale",
        ..BASE
    }
    .model()
    .graph
    .unwrap_or_default();
    let counted = ModelWriter::new(17)
        .input("i", DataType::Int64, &[])
        .input("c", DataType::Bool, &[])
        .node("Identity", &["c"], &["goes_on"], vec![])
        .output("goes_on")
        .into_model()
        .graph
        .unwrap_or_default();
    body.input.splice(0..0, counted.input);
    body.output.splice(0..0, counted.output);
    body.node.splice(0..0, counted.node);
    let mut model = ModelWriter::new(17)
        .input("x", DataType::Float32, &["2", "n"])
        .constant("rounds", &Tensor::scalar(2i64))
        .constant("scale", &wave(DataType::Float32, &[4], 0.7))
        .node("Loop", &["rounds", "", "x"], &["z"], vec![])
        .output("z")
        .into_model();
    let graph = model.graph.get_or_insert_default();
    graph.node[0].attribute.push(proto::Attribute {
        name: Some("body".into()),
        g: Some(body),
        r#type: Some(proto::AttributeType::Graph as i32),
        ..Default::default()
    });
    let x = Value::Tensor(wave(DataType::Float32, &[2, 1], 0.7));
    let [plain, rewritten] = [false, true].map(|rewrite| {
        let options = SessionOptions {
            rewrite,
            ..SessionOptions::default()
        };
        let session = Session::from_model(&model, &options).expect("a model");
        let outputs = session.run(&[("x", x.clone())]).expect("a run");
        outputs[0].1.as_tensor().expect("a tensor").clone()
    });
    assert_eq!(plain.shape(), [2, 4]);
    same("a loop", &plain, &rewritten);
}

#[test]
fn what_a_branch_declares_of_its_outputs_sizes_nothing() {
    let branch = || {
        let branch = ModelWriter::new(17)
            .node("Squeeze", &["x"], &["s"], vec![])
            .output("s");
        let mut branch = branch.into_model().graph.unwrap_or_default();
        let declared = ModelWriter::new(17).input("s", DataType::Float32, &["3", "4"]);
        branch.output = declared.into_model().graph.unwrap_or_default().input;
        branch
    };
    let mut model = ModelWriter::new(17)
        .input("x", DataType::Float32, &["a", "b", "c", "d"])
        .input("holds", DataType::Bool, &[])
        .node("If", &["holds"], &["z"], vec![])
        .node(
            "Transpose",
            &["z"],
            &["y"],
            vec![("perm", Attribute::Ints(vec![2, 0, 1]))],
        )
        .output("y")
        .into_model();
    for name in ["then_branch", "else_branch"] {
        let graph = model.graph.get_or_insert_default();
        graph.node[0].attribute.push(proto::Attribute {
            name: Some(name.into()),
            g: Some(branch()),
            r#type: Some(proto::AttributeType::Graph as i32),
            ..Default::default()
        });
    }
    let session = Session::from_model(&model, &SessionOptions::default()).expect("a model");
    let x = Value::Tensor(wave(DataType::Float32, &[2, 1, 3, 4], 0.7));
    let holds = Value::Tensor(Tensor::scalar(crate::tensor::Bool::from(true)));
    let outputs = session.run(&[("x", x), ("holds", holds)]).expect("a run");
    assert_eq!(
        outputs[0].1.as_tensor().expect("a tensor").shape(),
        [4, 2, 3]
    );
}
