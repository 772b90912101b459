// Cuts Square's published OpenAPI description down to what tests/prism.rs asks for, for Prism.
//
//   node tests/prism/describe.mjs SQUARE.json FOLDER
//
// Writes two descriptions to FOLDER:
//   published.json  the three calls and the schemas they reach, examples as Square published them:
//                   every page of a list names the same next cursor
//   ending.json     the same, but the lists end: no cursor in the examples, and the search for
//                   orders answers orders (Square's own examples of them), as it does for
//                   `return_entries: false`, instead of entries
// A reference that leads nowhere is replaced by a schema that accepts anything.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const CALLS = { "/v2/locations": "get", "/v2/orders/search": "post", "/v2/payments": "get" };
const ORDER_EXAMPLES = ["PayOrderResponse", "CreateOrderResponse"];

const [source, folder] = process.argv.slice(2);
if (!folder) throw new Error("expected two arguments: SQUARE.json FOLDER");
const square = JSON.parse(readFileSync(source, "utf8"));

const copy = (value) => JSON.parse(JSON.stringify(value));

// The value with dead references replaced; every living one is noted in `reached`.
function follow(value, reached) {
  if (Array.isArray(value)) return value.map((item) => follow(item, reached));
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$ref === "string") {
    const name = value.$ref.replace("#/components/schemas/", "");
    if (!Object.hasOwn(square.components.schemas, name)) return {};
    reached.add(name);
    return { $ref: value.$ref };
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, follow(item, reached)]));
}

function describe() {
  const reached = new Set();
  const paths = {};
  for (const [path, method] of Object.entries(CALLS)) {
    paths[path] = { [method]: follow(square.paths[path][method], reached) };
  }
  const schemas = {};
  for (const name of reached) schemas[name] = follow(square.components.schemas[name], reached); // grows while it is read
  const { openapi, info, servers } = square;
  const { securitySchemes } = square.components;
  return copy({ openapi, info, servers, paths, components: { schemas, securitySchemes } });
}

const write = (name, description) => writeFileSync(join(folder, name), JSON.stringify(description, null, 1));

const published = describe();
for (const name of ["SearchOrdersResponse", "ListPaymentsResponse"]) {
  if (!published.components.schemas[name].example.cursor) throw new Error(`the example of ${name} has no cursor any more`);
}
write("published.json", published);

const ending = describe();
delete ending.components.schemas.ListPaymentsResponse.example.cursor;
ending.components.schemas.SearchOrdersResponse.example = {
  orders: ORDER_EXAMPLES.map((name) => copy(square.components.schemas[name].example.order)),
};
write("ending.json", ending);
