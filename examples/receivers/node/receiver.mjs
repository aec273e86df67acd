// Receive callbacks: CALLBACK_SECRET=whsec_… node receiver.mjs [PORT]
import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const webhook = new Webhook(process.env.CALLBACK_SECRET);
const MAX_BYTES = 1_048_576;
const seen = new Set(); // in your service: a database table with a unique column

const server = createServer((request, response) => {
  receive(request, response).catch((error) => {
    console.error(error);
    response.writeHead(500).end();
  });
});

async function receive(request, response) {
  const body = await read(request); // verify these bytes: parsing and encoding them changes them
  if (body === null) return response.writeHead(413).end();
  try {
    webhook.verify(body, request.headers);
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    return response.writeHead(401).end();
  }
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    handle(JSON.parse(body));
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
  if (type === "uvr.task.succeeded") console.log(data.task_uuid, "vocals:", data.vocals.url);
  else console.log(data.task_uuid, "failed:", data.error.code);
}

server.listen(Number(process.argv[2] ?? 8099), "127.0.0.1", () => {
  console.log(`Listening at http://127.0.0.1:${server.address().port}`);
});
