package ton

// Price is what a weighted token costs, and how tokens are weighted: parts of WeightOne, as in COCOON's params cell.
type Price struct {
	NanotonPerToken  uint64 `json:"nanoton_per_token"` // of one weighted token
	PromptWeight     uint32 `json:"prompt_weight"`
	CachedWeight     uint32 `json:"cached_weight"`
	CompletionWeight uint32 `json:"completion_weight"`
	ReasoningWeight  uint32 `json:"reasoning_weight"`
}

// WeightOne is the weight at which a token counts as one token.
const WeightOne = 10_000
