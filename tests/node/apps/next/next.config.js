module.exports = {
  rewrites: () => [{ source: '/slow', destination: '/api/slow' }],
};
