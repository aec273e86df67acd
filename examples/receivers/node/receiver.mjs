// Receive callbacks:
// CALLBACK_KEY=whpk_… CALLBACK_AUDIENCE=https://example.com node receiver.mjs [PORT]
import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { createServer } from "node:http";

const KEYS = process.env.CALLBACK_KEY.trim().split(/\s+/).map(parse);
const AUDIENCE = process.env.CALLBACK_AUDIENCE; // never from the request: its sender chooses its Host
const MAX_BYTES = 1_048_576;
const TOLERANCE_SECONDS = 300;
const seen = new Set(); // in your service: a database table with a unique column
if (!AUDIENCE) throw new Error("CALLBACK_AUDIENCE is not set");

// A public key (whpk_) or a shared secret (whsec_): each verifies its own kind alone.
function parse(text) {
  const [prefix, encoded] = text.split("_", 2);
  const raw = Buffer.from(encoded ?? "", "base64");
  if (prefix === "whpk" && raw.length === 32) {
    const jwk = { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") };
    const key = createPublicKey({ key: jwk, format: "jwk" });
    return { version: "v1a", verifies: (signature, content) => verify(null, content, key, signature) };
  }
  if (prefix === "whsec" && raw.length >= 24) {
    const sign = (content) => createHmac("sha256", raw).update(content).digest();
    const equal = (one, other) => one.length === other.length && timingSafeEqual(one, other);
    return { version: "v1", verifies: (signature, content) => equal(signature, sign(content)) };
  }
  throw new Error("CALLBACK_KEY must hold whpk_… or whsec_… keys");
}

function verified(headers, body) {
  const id = headers["webhook-id"] ?? "";
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!id || !/^[0-9]{1,12}$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  return (headers["webhook-signature"] ?? "").split(" ").some((versioned) => {
    const [version, encoded] = versioned.split(",", 2);
    const signature = Buffer.from(encoded ?? "", "base64");
    return KEYS.some((key) => key.version === version && key.verifies(signature, content));
  });
}

const server = createServer((request, response) => {
  receive(request, response).catch((error) => {
    console.error(error);
    response.writeHead(500).end();
  });
});

async function receive(request, response) {
  const body = await read(request); // verify these bytes: parsing and encoding them changes them
  if (body === null) return response.writeHead(413).end();
  if (!verified(request.headers, body)) return response.writeHead(401).end();
  const callback = JSON.parse(body);
  // Signed, but for another receiver.
  if (callback.audience !== AUDIENCE) return response.writeHead(401).end();
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    handle(callback);
    seen.add(id); // last, so that a callback whose handling failed is sent again
  }
  response.writeHead(204).end();
}

async function read(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

// Queue the work and do it elsewhere: the sender waits for the answer.
function handle({ type, data }) {
  if (type === "uvr.task.succeeded") {
    const { vocals, instrumental } = data; // a task may ask for one of them
    if (vocals) console.log(data.task_uuid, "vocals:", vocals.url);
    if (instrumental) console.log(data.task_uuid, "instrumental:", instrumental.url);
  } else console.log(data.task_uuid, "failed:", data.error.code);
}

server.listen(Number(process.argv[2] ?? 8099), "127.0.0.1", () => {
  console.log(`Listening at http://127.0.0.1:${server.address().port}`);
});
