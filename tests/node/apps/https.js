const { readFileSync } = require('node:fs');
const https = require('node:https');
const { hello } = require('./lib/hello');

const [key, cert] = ['key', 'cert'].map((name) => readFileSync(`${__dirname}/tls/${name}.pem`));
https.createServer({ key, cert }, hello).listen(process.env.PORT);
