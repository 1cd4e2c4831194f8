package role

import (
	"encoding/binary"
	"fmt"
	"io"

	"chrysalis/runtime/secret"
)

// messageBytes is the secret's message: the secret, and the count of completed boots as u64, little endian.
const messageBytes = secret.Size + 8

// SendSecret writes the secret's message. The caller wipes the secret, and closes the pipe: its end is part of the message.
func SendSecret(pipe io.Writer, s *secret.Secret, boots uint64) error {
	message := make([]byte, messageBytes)
	defer clear(message)
	s.Expose(func(raw []byte) { copy(message, raw) })
	binary.LittleEndian.PutUint64(message[secret.Size:], boots)
	if _, err := pipe.Write(message); err != nil {
		return fmt.Errorf("sending secret: %w", err)
	}
	return nil
}

// ReceiveSecret reads the secret's message to the pipe's end. A message that is shorter or longer is refused.
func ReceiveSecret(pipe io.Reader) (s *secret.Secret, boots uint64, err error) {
	var message [messageBytes + 1]byte
	defer clear(message[:])
	n, err := io.ReadFull(pipe, message[:])
	switch {
	case err == nil:
		return nil, 0, fmt.Errorf("receiving secret: more than %d bytes", messageBytes)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return nil, 0, fmt.Errorf("receiving secret: %w", err)
	case n != messageBytes:
		return nil, 0, fmt.Errorf("receiving secret: %d bytes, want %d", n, messageBytes)
	}
	if s, err = secret.New(message[:secret.Size]); err != nil {
		return nil, 0, fmt.Errorf("receiving secret: %w", err)
	}
	return s, binary.LittleEndian.Uint64(message[secret.Size:]), nil
}
