package fetch

import (
	"bytes"
	"encoding/binary"

	"github.com/xssnick/tonutils-go/tl"
)

// Raw is the body of a constructor of TL, which nobody here reads.
type Raw struct{ Body []byte }

// Serialize writes the body.
func (r Raw) Serialize(b *bytes.Buffer) error {
	b.Write(r.Body)
	return nil
}

// Parse takes all that there is.
func (r *Raw) Parse(data []byte) ([]byte, error) {
	r.Body = bytes.Clone(data)
	return nil, nil
}

// Serialize writes the bag as bytes of TL.
func (m SendMessage) Serialize(b *bytes.Buffer) error { return tl.ToBytesToBuffer(b, m.Bag) }

// Parse takes bytes of TL.
func (m *SendMessage) Parse(data []byte) (rest []byte, err error) {
	m.Bag, rest, err = tl.FromBytes(data)
	return rest, err
}

// The questions and answers of a liteserver. Their declarations are those of its scheme (lite_api.tl).
type (
	// GetBlockProof is a question.
	GetBlockProof struct{ Raw }
	// GetAccountState is a question.
	GetAccountState struct{ Raw }
	// GetTransactions is a question.
	GetTransactions struct{ Raw }
	// SendMessage is a question.
	SendMessage struct{ Bag []byte }
	// PartialBlockProof answers GetBlockProof.
	PartialBlockProof struct{ Raw }
	// AccountStateAnswer answers GetAccountState.
	AccountStateAnswer struct{ Raw }
	// TransactionList answers GetTransactions.
	TransactionList struct{ Raw }
	// SendStatus answers SendMessage.
	SendStatus struct{ Raw }
	// Refusal is a liteserver's error.
	Refusal struct{ Raw }
)

var (
	idPartialBlockProof = tl.Register(PartialBlockProof{}, "liteServer.partialBlockProof complete:Bool from:tonNode.blockIdExt "+
		"to:tonNode.blockIdExt steps:(vector liteServer.BlockLink) = liteServer.PartialBlockProof")
	idAccountState = tl.Register(AccountStateAnswer{}, "liteServer.accountState id:tonNode.blockIdExt shardblk:tonNode.blockIdExt "+
		"shard_proof:bytes proof:bytes state:bytes = liteServer.AccountState")
	idTransactionList = tl.Register(TransactionList{}, "liteServer.transactionList ids:(vector tonNode.blockIdExt) transactions:bytes "+
		"= liteServer.TransactionList")
	idSendStatus = tl.Register(SendStatus{}, "liteServer.sendMsgStatus status:int = liteServer.SendMsgStatus")
	_            = tl.Register(SendMessage{}, "liteServer.sendMessage body:bytes = liteServer.SendMsgStatus")
	_            = tl.Register(GetBlockProof{}, "liteServer.getBlockProof mode:# known_block:tonNode.blockIdExt target_block:mode.0?tonNode.blockIdExt "+
		"= liteServer.PartialBlockProof")
	_ = tl.Register(GetAccountState{}, "liteServer.getAccountState id:tonNode.blockIdExt account:liteServer.accountId "+
		"= liteServer.AccountState")
	_ = tl.Register(GetTransactions{}, "liteServer.getTransactions count:# account:liteServer.accountId lt:long hash:int256 "+
		"= liteServer.TransactionList")
	_ = tl.Register(Refusal{}, "liteServer.error code:int message:string = liteServer.Error")
)

// boxed is an answer that is handed on with its constructor's number, as package chain reads it.
type boxed interface{ box() []byte }

func box(id uint32, body []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, id), body...)
}

func (a PartialBlockProof) box() []byte  { return box(idPartialBlockProof, a.Body) }
func (a AccountStateAnswer) box() []byte { return box(idAccountState, a.Body) }
func (a TransactionList) box() []byte    { return box(idTransactionList, a.Body) }
func (a SendStatus) box() []byte         { return box(idSendStatus, a.Body) }

// text is a refusal's words, cut short.
func (r Refusal) text() string {
	const most = 200
	if len(r.Body) < 5 {
		return ""
	}
	n := min(int(r.Body[4]), len(r.Body)-5, most)
	return string(r.Body[5 : 5+n])
}
