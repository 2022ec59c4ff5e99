// Package typescript holds the proof that the published OpenAPI documents make a clean TypeScript client: one is generated from
// what a running server serves, compiled strictly, and used against that server. make e2e-typescript runs it; it needs Node.js.
package typescript
