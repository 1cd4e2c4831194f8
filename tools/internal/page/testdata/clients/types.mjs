// Compiles types.ts, strictly.
import ts from "typescript";

const { NodeNext } = ts.ModuleKind;
const program = ts.createProgram(["types.ts"], { noEmit: true, strict: true, skipLibCheck: true, module: NodeNext, target: ts.ScriptTarget.ES2024, lib: ["lib.es2024.d.ts", "lib.dom.d.ts"], types: [] });
const wrong = ts.getPreEmitDiagnostics(program);
if (wrong.length > 0) throw new Error(ts.formatDiagnostics(wrong, { getCanonicalFileName: (n) => n, getCurrentDirectory: () => ".", getNewLine: () => "\n" }));
console.log("passed");
