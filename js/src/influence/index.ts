import "./influence.css";

export default function Nothing() {
  return null;
}
