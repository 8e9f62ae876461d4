import { once } from 'node:events';
import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { hello } from './lib/hello.js';

await setTimeout(20);
const server = createServer(hello).listen(process.env.PORT);
await once(server, 'listening');
