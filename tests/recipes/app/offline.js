// Keeps the page's files, so that it comes without a network.
self.addEventListener("install", (event) => event.waitUntil((async () => {
  const files = ["./", "index.html", "page.js", "main.js", "model.onnx", "lethe/index.js", "lethe/worker.js", "lethe/lethe-relaxed.wasm"];
  await (await caches.open("app")).addAll(files);
  await self.skipWaiting();
})()));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => event.respondWith(
  caches.match(event.request, { ignoreSearch: true }).then((hit) => hit ?? fetch(event.request)),
));
