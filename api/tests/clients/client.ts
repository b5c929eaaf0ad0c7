// Reads the punches and takes somebody on, by types made from the description of the API.
// Arguments: the server's address, an operator's key, a site, the one punch there is. Prints who
// was taken on.

import createClient from "openapi-fetch";
import type { paths } from "./openapi.js";

declare const process: { argv: [string, string, string, string, string, string] };

const [, , baseUrl, key, site, punch] = process.argv;
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });

const page = await client.GET("/v1/punches", { params: { query: { order: "oldest" } } });
if (page.error) throw new Error(page.error.detail);
const punches = page.data.data.map((row) => row.punch);
if (punches.join() !== punch) throw new Error(`not ${punch} but ${punches}`);

const hired = await client.POST("/v1/employees", { body: { name: "Grace", site } });
if (hired.error) throw new Error(hired.error.detail);
console.log(hired.data.employee);
