// Names of layers where many stand under one another.

/** The names without the path that all of them share; a number keeps what it counts. */
export function shortNames(layers: readonly string[]): string[] {
  const paths = layers.map((layer) => layer.split("."));
  const shortest = Math.min(...paths.map((path) => path.length)) - 1;
  let shared = 0;
  while (layers.length > 1 && shared < shortest && paths.every((path) => path[shared] === paths[0]?.[shared]))
    shared += 1;
  if (shared > 0 && paths.some((path) => /^\d/.test(path[shared] ?? ""))) shared -= 1;
  return paths.map((path) => path.slice(shared).join("."));
}
