// Asks for a path over HTTP/2 without TLS, many times at once on one connection.
const http2 = require('node:http2');

const session = http2.connect(`http://127.0.0.1:${process.argv[2]}`);
session.on('error', (e) => {
  console.log(e);
  process.exit(1);
});
const ask = () =>
  new Promise((resolve, reject) => {
    let answer = '';
    const stream = session.request({ ':path': process.argv[3] });
    stream.setEncoding('utf8');
    stream.on('data', (data) => {
      answer += data;
    });
    stream.on('end', () => resolve(answer));
    stream.on('error', reject);
  });
Promise.all(Array.from({ length: 10 }, ask)).then((answers) => {
  console.log([...new Set(answers)].join(''));
  session.close();
});
