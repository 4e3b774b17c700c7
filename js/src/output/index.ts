import "./output.css";

export default function Nothing() {
  return null;
}
