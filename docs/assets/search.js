// To the theme's search a dash splits a word or excludes it. Here --fail-on, train-cls and -o are words:
// leading pairs of dashes go, as they do in the index; the others are escaped twice, since a query is
// parsed twice.
const QUERY = 2; // the theme's type of message
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...rest) {
  if (message?.type === QUERY) {
    const data = message.data.replace(/--+/g, " ").replace(/-/g, "\\\\\\-");
    message = { ...message, data };
  }
  return post.call(this, message, ...rest);
};
