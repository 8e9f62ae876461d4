const express = require('express');
const { who } = require('./lib/hello');

const app = express();
app.get('/', (_, response) => response.send(who()));
app.get('/slow', (request, response) => setTimeout(() => response.send(who()), Number(request.query.ms)));
app.listen(process.env.PORT);
