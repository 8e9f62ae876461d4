export default function slow(request, response) {
  setTimeout(() => response.status(200).send(`pid ${process.pid}\n`), Number(request.query.ms));
}
