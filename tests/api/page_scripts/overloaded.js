// Has a notice take the place of the next partial text.
const [socket] = sockets, real = socket.onmessage;
socket.onmessage = (event) => {
  const body = JSON.parse(event.data);
  if (body.type !== "partial") return real(event);
  socket.onmessage = real;
  const { number } = body, [code, message] = arguments;
  real({ data: JSON.stringify({ type: "notice", number, code, message }) });
};
