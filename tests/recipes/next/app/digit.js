"use client";
import { useEffect } from "react";
import { read } from "../main.js";

export default function Digit() {
  useEffect(() => {
    read("/model.onnx").then(
      (logits) => (globalThis.answer = { logits }),
      (error) => (globalThis.answer = { error: `${error.code} ${error.message}` }),
    );
  }, []);
  return <p>a digit</p>;
}
