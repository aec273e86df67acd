// A consumer that knows the published schemas and nothing else of the pipeline.
//
// node consumer.mjs SCHEMAS: reads a line {"schema": "task", "value": …} for each message, and
// answers each with a JSON line: null, or why the schema refuses the message.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const folder = process.argv[2];
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
addFormats.default(ajv);
const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const validators = {};
for (const file of readdirSync(folder)) {
  if (file.endsWith(".json") && file !== "asyncapi.json") {
    validators[file.replace(".json", "")] = ajv.compile(read(join(folder, file)));
  }
}

// The official schema of AsyncAPI 3.0 is one of draft 7, and contains that draft's own.
if (process.argv[3]) {
  const { default: Ajv } = await import("ajv");
  const official = new Ajv({ strict: false, meta: false, validateSchema: false });
  addFormats.default(official);
  const validate = official.compile(read(process.argv[3]));
  validators.asyncapi = validate;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { schema, value } = JSON.parse(line);
  const validate = validators[schema];
  const valid = validate(value);
  console.log(JSON.stringify(valid ? null : ajv.errorsText(validate.errors)));
}
