// Has sfmc-sdk ask the stand-in for its own token, and make it ask again.
import assert from 'node:assert/strict';
import SDK from 'sfmc-sdk';

const { CLIENT_ID, CLIENT_SECRET, ACCOUNT_ID, AUTH_URL } = process.env;
let requests = 0;
const sdk = new SDK(
  { client_id: CLIENT_ID, client_secret: CLIENT_SECRET, account_id: ACCOUNT_ID, auth_url: AUTH_URL },
  { requestAttempts: 2, eventHandlers: { onRefresh: () => requests++ } },
);
const calls = {
  rest: async () => (await sdk.rest.get('platform/v1/tokenContext')).organization.id,
  soap: async () => (await sdk.soap.retrieve('BusinessUnit', ['ID'])).Results[0].ID,
};
for (const [name, call] of Object.entries(calls)) {
  assert.equal(String(await call()), ACCOUNT_ID, name);
  const before = requests;
  sdk.auth.authObject.access_token = 'dead';
  assert.equal(String(await call()), ACCOUNT_ID, name);
  assert.equal(requests, before + 1, `${name} asks for another token when the stand-in says that this one is dead`);
}
await assert.rejects(sdk.soap.retrieve('Nonsense', ['ID']), /Unable to find a handler for object type: Nonsense/);
sdk.auth.authObject.client_secret = 'wrong';
await assert.rejects(sdk.auth.getAccessToken(true), /Client authentication failed/);
