// Package api has the names that a guest and its clients call each other by: the paths that are served, and the header that says who
// pays. What is sent and answered there is in runtime/internal/gateway/API.md.
package api

// The paths, beside that of evidence (attest/ratls/session).
const (
	Models          = "/v1/models"
	Health          = "/health"
	ChatCompletions = "/v1/chat/completions"
	Completions     = "/v1/completions"
	Embeddings      = "/v1/embeddings"
	Messages        = "/v1/messages"
	Responses       = "/v1/responses"
	Transcriptions  = "/v1/audio/transcriptions"
	// Receipts and Signatures go before the id of an answer.
	Receipts   = "/v1/receipts/"
	Signatures = "/v1/signature/"
	Report     = "/v1/attestation/report"
	// Keys is where a client makes and revokes keys of its contract, where charges are settled on chain.
	Keys = "/v1/keys"
)

// Answers are the paths that are asked for answers: each has a proof, and is charged where answers are.
func Answers() []string {
	return []string{ChatCompletions, Completions, Embeddings, Messages, Responses, Transcriptions}
}

// ClientHeader names the payment contract that an answer is charged to, in raw form.
const ClientHeader = "Chrysalis-Client"

// MaxCoefficientHeader is the most that a request's tokens may be multiplied by, in parts of 10000, where charges are settled on chain.
const MaxCoefficientHeader = "Chrysalis-Max-Coefficient"
