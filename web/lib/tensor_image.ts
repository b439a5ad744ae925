/** Pictures as tensors, and back: the conversions of onnxruntime-common, for what has a canvas. */

import type { NumberArray } from "./element_types.js";
import { LetheError } from "./errors.js";

export type ImageFormat = "RGB" | "RGBA" | "BGR" | "RBG";
export type ImageTensorLayout = "NHWC" | "NCHW";

/** One number for all channels, or one for each. */
type PerChannel = number | [number, number, number] | [number, number, number, number];

export interface OptionsFormat {
  /** The order of the channels that a picture made of a tensor is read in; `RGB` by default. */
  format?: ImageFormat;
}
export interface OptionsTensorFormat {
  /** The channels of the tensor; `RGB` by default. */
  tensorFormat?: ImageFormat;
}
export interface OptionsTensorDataType {
  /** `float32`, the default, or `uint8`, for which the norm defaults to none. */
  dataType?: "float32" | "uint8";
}
export interface OptionsTensorLayout {
  /** Whether channels come before rows and columns; `NCHW` by default. */
  tensorLayout?: ImageTensorLayout;
}
export interface OptionsDimensions {
  height?: number;
  width?: number;
}
export interface OptionResizedDimensions {
  resizedHeight?: number;
  resizedWidth?: number;
}
export interface OptionsNormalizationParameters {
  /** Elements are `(pixel + bias) / mean`; pixels `element * mean - bias`. Means are 255 by default. */
  norm?: { bias?: PerChannel; mean?: PerChannel };
}

/** Options of `Tensor.fromImage`. */
export interface TensorFromImageOptions
  extends OptionResizedDimensions, OptionsTensorFormat, OptionsTensorLayout, OptionsTensorDataType,
    OptionsNormalizationParameters {}
export interface TensorFromImageDataOptions extends TensorFromImageOptions {}
export interface TensorFromImageElementOptions extends TensorFromImageOptions {}
export interface TensorFromBitmapOptions extends TensorFromImageOptions {}
export interface TensorFromImageBitmapOptions extends TensorFromImageOptions {}
export interface TensorFromUrlOptions extends TensorFromImageOptions, OptionsDimensions {}

/** Options of `toDataURL` and `toImageData`. */
export interface TensorToImageOptions
  extends OptionsTensorLayout, OptionsFormat, OptionsNormalizationParameters {}
export interface TensorToDataUrlOptions extends TensorToImageOptions {}
export interface TensorToImageDataOptions extends TensorToImageOptions {}

/** What a tensor can be made of. */
export type ImageSource = ImageData | HTMLImageElement | ImageBitmap | string;

type Canvas = HTMLCanvasElement | OffscreenCanvas;
type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/** Where each channel of a format is among red, green, blue and alpha. */
const CHANNELS: Record<ImageFormat, readonly number[]> = {
  RGB: [0, 1, 2],
  RGBA: [0, 1, 2, 3],
  BGR: [2, 1, 0],
  RBG: [0, 2, 1],
};

/** A picture's pixels as type, elements and shape. */
export async function fromImage(source: ImageSource, options: TensorFromUrlOptions = {}): Promise<{
  type: "float32" | "uint8"; data: Float32Array | Uint8Array; dims: number[];
}> {
  const channels = channelsOf("tensorFormat", options.tensorFormat);
  const { data: pixels, width, height } = await pixelsOf(source, options);
  const type = options.dataType ?? "float32";
  const { bias, mean } = norm(options, type === "uint8" ? 1 : 255);
  const data = type === "uint8"
    ? new Uint8ClampedArray(channels.length * width * height)
    : new Float32Array(channels.length * width * height);
  const place = placing(options.tensorLayout, channels.length, width * height);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    channels.forEach((channel, i) => {
      data[place(pixel, i)] = ((pixels[4 * pixel + channel] as number) + bias(channel)) / mean(channel);
    });
  }
  const dims = options.tensorLayout === "NHWC"
    ? [1, height, width, channels.length]
    : [1, channels.length, height, width];
  const array = data instanceof Float32Array ? data : new Uint8Array(data.buffer);
  return { type, data: array, dims };
}

/** A tensor's pixels: `[1, channels, height, width]`, or as the layout says. */
export function toImageData(
  tensor: { data: NumberArray; dims: readonly number[] }, options: TensorToImageOptions = {},
): ImageData {
  if (typeof ImageData === "undefined") throw noCanvas("ImageData");
  const isLast = options.tensorLayout === "NHWC";
  const [, ...rest] = tensor.dims as number[];
  const [depth, height, width] = isLast ? [rest[2], rest[0], rest[1]] : rest;
  if (tensor.dims.length !== 4 || tensor.dims[0] !== 1 || !depth || !height || !width || depth > 4) {
    throw new LetheError(
      "LETHE-TENSOR",
      `a picture takes the shape ${isLast ? "[1, H, W, 1, 3 or 4]" : "[1, 1, 3 or 4, H, W]"}, ` +
        `found [${tensor.dims.join(", ")}]`,
    );
  }
  const format = options.format ?? (depth === 4 ? "RGBA" : "RGB");
  const channels = channelsOf("format", format);
  if (depth !== 1 && channels.length !== depth) {
    throw new LetheError("LETHE-OPTION", `format: ${format} has ${channels.length} channels, the tensor ${depth}`);
  }
  const { bias, mean } = norm(options, 255);
  const place = placing(options.tensorLayout, depth, width * height);
  const pixels = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    channels.forEach((channel, i) => {
      const element = Number(tensor.data[place(pixel, depth === 1 ? 0 : i)]);
      pixels[4 * pixel + channel] = element * mean(channel) - bias(channel);
    });
  }
  return new ImageData(pixels, width, height);
}

/** The same as the address of a PNG. */
export function toDataURL(
  tensor: { data: NumberArray; dims: readonly number[] }, options: TensorToImageOptions = {},
): string {
  if (typeof document === "undefined") throw noCanvas("toDataURL");
  const image = toImageData(tensor, options);
  const [canvas, context] = canvasOf(image.width, image.height);
  context.putImageData(image, 0, 0);
  return (canvas as HTMLCanvasElement).toDataURL();
}

/** Where a channel of a pixel is. */
function placing(layout: ImageTensorLayout = "NCHW", channels: number, pixels: number) {
  if (layout !== "NCHW" && layout !== "NHWC") {
    throw new LetheError("LETHE-OPTION", `tensorLayout: expected NCHW or NHWC, found ${JSON.stringify(layout)}`);
  }
  return layout === "NHWC"
    ? (pixel: number, channel: number) => pixel * channels + channel
    : (pixel: number, channel: number) => channel * pixels + pixel;
}

function norm({ norm: given = {} }: OptionsNormalizationParameters, usual: number) {
  const of = (name: string, value: PerChannel | undefined, otherwise: number) => {
    const values = Array.isArray(value) ? value : undefined;
    if (values ? values.length < 3 || values.some(notNumber) : value !== undefined && notNumber(value)) {
      throw new LetheError("LETHE-OPTION", `norm.${name}: expected a number, or one for each channel`);
    }
    return (channel: number) => (values ? values[channel] : (value as number | undefined)) ?? otherwise;
  };
  return { bias: of("bias", given.bias, 0), mean: of("mean", given.mean, usual) };
}

const notNumber = (value: unknown) => typeof value !== "number";

function channelsOf(option: string, format: ImageFormat = "RGB"): readonly number[] {
  if (Object.hasOwn(CHANNELS, format)) return CHANNELS[format];
  throw new LetheError(
    "LETHE-OPTION", `${option}: expected ${Object.keys(CHANNELS).join(", ")}, found ${JSON.stringify(format)}`,
  );
}

/** A picture's pixels, resized where that is asked for. */
async function pixelsOf(source: ImageSource, options: TensorFromUrlOptions): Promise<ImageData> {
  const is = (name: string) => {
    const type = (globalThis as Record<string, unknown>)[name];
    return typeof type === "function" && source instanceof (type as new () => unknown);
  };
  const resized = (width: number, height: number): [number, number] => [
    options.resizedWidth ?? options.width ?? width, options.resizedHeight ?? options.height ?? height,
  ];
  if (is("ImageData")) {
    const image = source as ImageData;
    const [width, height] = resized(image.width, image.height);
    if (width === image.width && height === image.height) return image;
    const [canvas, context] = canvasOf(image.width, image.height);
    context.putImageData(image, 0, 0);
    return draw(canvas, width, height);
  }
  if (is("HTMLImageElement")) {
    const image = source as HTMLImageElement;
    await image.decode();
    return draw(image, ...resized(image.naturalWidth, image.naturalHeight));
  }
  if (is("ImageBitmap")) {
    const bitmap = source as ImageBitmap;
    return draw(bitmap, ...resized(bitmap.width, bitmap.height));
  }
  if (typeof source === "string") {
    const response = await fetch(source).catch((thrown: Error) => thrown);
    if (response instanceof Error || !response.ok) {
      const reason = response instanceof Error ? response.message : `the server answered ${response.status}`;
      throw new LetheError("LETHE-FETCH", `${source}: ${reason}`);
    }
    if (typeof createImageBitmap === "undefined") throw noCanvas("fromImage");
    const bitmap = await createImageBitmap(await response.blob()).catch((thrown: Error) => {
      throw new LetheError("LETHE-FETCH", `${source}: ${thrown.message}`);
    });
    return draw(bitmap, ...resized(bitmap.width, bitmap.height));
  }
  throw new LetheError(
    "LETHE-TENSOR", "an image: expected ImageData, an HTMLImageElement, an ImageBitmap or an address",
  );
}

function draw(image: CanvasImageSource, width: number, height: number): ImageData {
  const [, context] = canvasOf(width, height);
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

function canvasOf(width: number, height: number): [Canvas, Context] {
  let canvas: Canvas;
  if (typeof document !== "undefined") {
    canvas = Object.assign(document.createElement("canvas"), { width, height });
  } else if (typeof OffscreenCanvas !== "undefined") {
    canvas = new OffscreenCanvas(width, height);
  } else {
    throw noCanvas("a picture");
  }
  const context = canvas.getContext("2d", { willReadFrequently: true }) as Context | null;
  if (!context) throw noCanvas("a picture");
  return [canvas, context];
}

function noCanvas(what: string): LetheError {
  return new LetheError("LETHE-UNSUPPORTED", `${what}: this platform has no canvas`);
}
