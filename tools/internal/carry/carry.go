// Package carry makes messages that a wallet carries to a guest's contracts, shows them in the forms that wallets take, and runs them over
// proven accounts in a virtual machine first. It has no key: a wallet is its owner's.
//
// The common path: a Message from one of the functions here, Try for its cost and its effect, then Link, QR or Connect.
//
// What this package does not promise: that a message lands, or that fees are what they were. A dry run takes prices that were the chain's
// from 2024 on; what it says of coins that are moved is exact for the accounts that it is given.
package carry

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/claim"
)

// Message is one that a wallet sends.
type Message struct {
	Name  string // what it does, for people
	To    ton.Address
	Value ton.Coins  // that it brings; what is left comes back
	Init  *cell.Cell // deploys the contract; nil where it is there
	Body  *cell.Cell // nil: none
}

// Operations that a contract's owner or anyone asks for, without a signature of the proxy's key.
const (
	opIncreaseStake  = 0x9713f187 // proxy
	opPayOwner       = 0x7610e6eb // proxy
	opTopUp          = 0xf172e6c2 // client
	opSecretAndTopUp = 0x8473b408 // client, its owner alone
	opSecret         = 0xa9357034 // client, its owner alone
	opWithdraw       = 0xda068e78 // client, its owner alone
	opRefund         = 0xfafa6cc1 // client, its owner alone
)

// What messages bring beside the coins that they are about. The contracts want 0.1 and keep 0.01 to 0.11 for their storage once; the rest
// is for fees on the way, and comes back.
const (
	forMessage = ton.Coins(200_000_000)
	forPayout  = ton.Coins(300_000_000)
	forDeploy  = ton.Coins(300_000_000)
	forFees    = ton.Coins(200_000_000)
	forStorage = ton.Coins(100_000_000) // of a contract that nobody asks anything
)

// body begins one.
func body(op uint64) *cell.Builder {
	var query [8]byte
	rand.Read(query[:])
	return new(cell.Builder).Uint(op, 32).Uint(binary.BigEndian.Uint64(query[:]), 64)
}

func message(name string, to ton.Address, value ton.Coins, b *cell.Builder) (Message, error) {
	c, err := b.Cell()
	return Message{Name: name, To: to, Value: value, Body: c}, err
}

// Deploy makes the message that deploys a contract of code and data and tells it nothing.
func Deploy(name string, code *cell.Cell, d claim.Data) (Message, error) {
	m := Message{Name: name, Value: forStorage}
	err := m.deploys(code, d)
	return m, err
}

func (m *Message) deploys(code *cell.Cell, d claim.Data) (err error) {
	if m.Init, err = claim.StateInit(code, d); err == nil {
		m.To = ton.Address{Account: m.Init.Hash()}
	}
	return err
}

// Stake raises a proxy's stake.
func Stake(proxy ton.Address, coins ton.Coins, change ton.Address) (Message, error) {
	return message("raise the proxy's stake by "+coins.String(), proxy, coins+forMessage, body(opIncreaseStake).Coins(uint64(coins)).Address(change))
}

// DeployProxy deploys a proxy and gives it its stake.
func DeployProxy(code *cell.Cell, d claim.Proxy, stake ton.Coins, change ton.Address) (Message, error) {
	m, err := Stake(ton.Address{}, stake, change)
	if err != nil {
		return m, err
	}
	m.Name, m.Value = "deploy the proxy with a stake of "+stake.String(), stake+forDeploy
	err = m.deploys(code, d)
	return m, err
}

// ForFees gives a proxy coins that are nobody's: it pays for payouts and refunds out of what it has beyond its stake and its clients' deposits,
// and a guest signs none that it could not pay for.
func ForFees(proxy ton.Address) Message {
	return Message{Name: "give the proxy " + forFees.String() + " for the fees of payouts and refunds", To: proxy, Value: forFees}
}

// PayOwner has a proxy pay its balance to its owner.
func PayOwner(proxy, change ton.Address) (Message, error) {
	return message("pay the proxy's balance to its owner", proxy, forMessage, body(opPayOwner).Address(change))
}

// OpenClient deploys a client's contract, with a first deposit and the hash of its secret. It must be sent by its owner.
func OpenClient(code *cell.Cell, d claim.Client, deposit ton.Coins, secretHash [32]byte) (Message, error) {
	m, err := message("open the contract with "+deposit.String(), ton.Address{}, deposit+forDeploy,
		body(opSecretAndTopUp).Coins(uint64(deposit)).Bytes(secretHash[:]).Address(d.Owner))
	if err != nil {
		return m, err
	}
	err = m.deploys(code, d)
	return m, err
}

// TopUp pays in to a client's contract. Anyone may.
func TopUp(client ton.Address, coins ton.Coins, change ton.Address) (Message, error) {
	return message("pay in "+coins.String(), client, coins+forMessage, body(opTopUp).Coins(uint64(coins)).Address(change))
}

// ChangeSecret puts another secret's hash into a client's contract. It must be sent by its owner.
func ChangeSecret(client ton.Address, secretHash [32]byte, owner ton.Address) (Message, error) {
	return message("change the secret", client, forMessage, body(opSecret).Bytes(secretHash[:]).Address(owner))
}

// Withdraw pays out what a client's contract has above its stake. It must be sent by its owner.
func Withdraw(client, owner ton.Address) (Message, error) {
	return message("withdraw what is above the stake", client, forMessage, body(opWithdraw).Address(owner))
}

// AskRefund begins a client's end: what is above the stake is paid out at once, the rest by the guest's grant, or out of the proxy's stake
// when it is sent again a delay later. It must be sent by its owner.
func AskRefund(client, owner ton.Address) (Message, error) {
	return message("ask for the rest, and close", client, forMessage, body(opRefund).Address(owner))
}

// Signed carries a signed message. change is where what is left goes.
func Signed(untrusted []byte, change ton.Address) (Message, error) {
	u, err := claim.Parse(untrusted)
	if err != nil {
		return Message{}, err
	}
	c, err := cell.ParseOne(untrusted)
	if err != nil {
		return Message{}, err
	}
	// The change's address is not signed: it is the carrier's own.
	r := c.Read()
	b := new(cell.Builder).Uint(r.Uint(32), 32).Uint(r.Uint(64), 64).Address(change)
	r.Address()
	signature := make([]byte, len(u.Signature))
	r.Bytes(signature)
	payload := r.Ref()
	if err := r.End(); err != nil {
		return Message{}, err
	}
	m, err := message(u.Message.Op.String(), u.Message.Contract, forMessage, b.Bytes(signature).Ref(payload))
	switch u.Message.Op {
	case claim.WorkerPayout, claim.WorkerLastPayout:
		m.Value = forPayout
	}
	if !u.Message.Op.Closes() {
		m.Name = fmt.Sprintf("%s up to %d tokens", u.Message.Op, u.Message.Tokens)
	}
	return m, err
}

// DeploysWorker adds to a payout what deploys the worker's contract, which the first one does.
func (m Message) DeploysWorker(code *cell.Cell, d claim.Worker) (Message, error) {
	to := m.To
	if err := m.deploys(code, d); err != nil {
		return m, err
	}
	if m.To != to {
		return m, fmt.Errorf("payout is for %s, want the worker %s", to, m.To)
	}
	return m, nil
}

// Link returns the message as a ton:// link, which wallets open.
func (m Message) Link() (string, error) {
	q := url.Values{"amount": {strconv.FormatUint(uint64(m.Value), 10)}}
	for name, c := range map[string]*cell.Cell{"bin": m.Body, "init": m.Init} {
		if c == nil {
			continue
		}
		bag, err := cell.Encode(c)
		if err != nil {
			return "", err
		}
		q.Set(name, base64.RawURLEncoding.EncodeToString(bag))
	}
	return "ton://transfer/" + m.To.Friendly(true) + "?" + q.Encode(), nil
}

// MaxConnect is how many messages one request of TON Connect has: all wallets take as many.
const MaxConnect = 4

// connect is a request of TON Connect's sendTransaction, as its libraries take it.
type connect struct {
	ValidUntil int64            `json:"validUntil"`
	Network    string           `json:"network"`
	From       string           `json:"from"`
	Messages   []connectMessage `json:"messages"`
}

type connectMessage struct {
	Address   string `json:"address"`
	Amount    string `json:"amount"`
	Payload   string `json:"payload,omitempty"`
	StateInit string `json:"stateInit,omitempty"`
}

// Connect returns messages as a request of TON Connect: the wallet from sends them at once, until then, on the network alone.
func Connect(messages []Message, from ton.Address, global int32, until time.Time) ([]byte, error) {
	if len(messages) == 0 || len(messages) > MaxConnect {
		return nil, fmt.Errorf("%d messages, want 1 to %d", len(messages), MaxConnect)
	}
	r := connect{ValidUntil: until.Unix(), Network: strconv.Itoa(int(global)), From: from.String()}
	for _, m := range messages {
		c := connectMessage{Address: m.To.Friendly(true), Amount: strconv.FormatUint(uint64(m.Value), 10)}
		for _, of := range []struct {
			cell *cell.Cell
			into *string
		}{{m.Body, &c.Payload}, {m.Init, &c.StateInit}} {
			if of.cell == nil {
				continue
			}
			bag, err := cell.Encode(of.cell)
			if err != nil {
				return nil, err
			}
			*of.into = base64.StdEncoding.EncodeToString(bag)
		}
		r.Messages = append(r.Messages, c)
	}
	return json.MarshalIndent(r, "", "  ")
}

// maxConnect bounds a request.
const maxConnectBytes = 1 << 20

// ParseConnect reads a request as Connect writes it. It is for a wallet of tests and the demonstration.
func ParseConnect(raw []byte) (messages []Message, from ton.Address, global int32, until time.Time, err error) {
	var r connect
	if len(raw) > maxConnectBytes {
		return nil, from, 0, until, fmt.Errorf("request has more than %d bytes", maxConnectBytes)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, from, 0, until, fmt.Errorf("reading request: %w", err)
	}
	n, err := strconv.ParseInt(r.Network, 10, 32)
	if err == nil {
		from, err = ton.Parse(r.From)
	}
	if err == nil && (len(r.Messages) == 0 || len(r.Messages) > MaxConnect) {
		err = fmt.Errorf("%d messages, want 1 to %d", len(r.Messages), MaxConnect)
	}
	if err != nil {
		return nil, from, 0, until, fmt.Errorf("reading request: %w", err)
	}
	for _, c := range r.Messages {
		var m Message
		to, err := ton.Parse(c.Address)
		amount, bad := strconv.ParseUint(c.Amount, 10, 64)
		if err == nil {
			err = bad
		}
		m.To, m.Value = to, ton.Coins(amount)
		for _, of := range []struct {
			text string
			into **cell.Cell
		}{{c.Payload, &m.Body}, {c.StateInit, &m.Init}} {
			if of.text == "" || err != nil {
				continue
			}
			var bag []byte
			if bag, err = base64.StdEncoding.DecodeString(of.text); err == nil {
				*of.into, err = cell.ParseOne(bag)
			}
		}
		if err != nil {
			return nil, from, 0, until, fmt.Errorf("reading request: message %d: %w", len(messages), err)
		}
		messages = append(messages, m)
	}
	return messages, from, int32(n), time.Unix(r.ValidUntil, 0), nil
}
