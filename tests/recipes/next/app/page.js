// Imported on the server as well, where nothing may happen by that.
import { env } from "lethe";
import Digit from "./digit.js";

export default function Page() {
  return <main data-version={env.versions.common}><Digit /></main>;
}
