/** PEM texts of roots that are trusted: of TPM makers, and of software platforms in the place of Intel's, AMD's and NVIDIA's own. */
export interface Roots { vtpm?: string; tdx?: string; sevsnp?: string; gpu?: string; gpuRims?: string }

export interface Options {
  /** What the guest must be: the text of a policy, or the object. */
  policy: string | object;
  roots?: Roots;
  /** A signed release list, for a policy that names its signers. */
  releaseList?: string | Uint8Array;
  /** When the newest list was issued that was seen before (RFC 3339): an older one is refused. */
  listAfter?: string;
  /** The TON address of the payment contract that is charged, where the guest charges and a request names nobody. */
  payer?: string;
  /** What seen() of an earlier connection returned, so that a step back of the guest's count is said. */
  seen?: string | object;
  /** Carries bytes, in the place of the global fetch. It is believed in nothing. */
  fetch?: typeof fetch;
  /** Is told of each verdict, also of those after a change of keys. */
  onVerdict?: (verdict: Verdict) => void;
  /** Is told of each proof, once its answer was read. */
  onProof?: (proof: Proof) => void;
}

export interface Check { name: string; verdict: string; got: string; want: string }

/** As `chrysalis verify --json` prints it. */
export interface Verdict {
  verdict: "accepted" | "rejected" | "unavailable";
  check: string;
  reason: string;
  weaknesses: string[];
  checks: Check[];
  [more: string]: unknown;
}

/** What is proven of an answer. */
export interface Proof {
  name: string;
  sequence: number;
  instance: string;
  outcome: "complete" | "cut";
  usage: { prompt_tokens: number; cached_tokens: number; completion_tokens: number; reasoning_tokens: number };
  weighted: number;
  cumulative: number;
  charge?: { tokens: number; nanoton: number; contract: string };
  /** Where the guest has come behind what it had signed before, in sentences. */
  steps_back: string[];
  /** For `chrysalis receipt verify`. */
  bundle: object;
}

export declare class GuestError extends Error {
  /** rejected: not what it must be; unavailable: not found out; refused: no request that may be sent. */
  readonly verdict: "rejected" | "unavailable" | "refused";
  readonly report?: Verdict;
}

export interface Guest {
  readonly verdict: Verdict | null;
  readonly listIssued: string;
  /** The id of the key that is sealed to now, "" when there is none. */
  readonly key: string;
  readonly baseURL: string;
  /** fetch, sealed to the guest. Give it to other people's SDKs. */
  readonly fetch: typeof fetch;
  verify(anyway?: boolean): Promise<Verdict>;
  proof(response: Response): Promise<Proof | null>;
  seen(): string;
  close(): void;
}

export declare function connect(origin: string, options: Options): Promise<Guest>;
