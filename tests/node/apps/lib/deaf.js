// Required before an app: it would never end by itself, and no signal is heard.
setInterval(() => {}, 60_000);
