import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { hello } from './lib/hello.js';

const answer = (request: IncomingMessage, response: ServerResponse): void => hello(request, response);
createServer(answer).listen(process.env.PORT);
