// Asks every minute which business unit the token of a mounted Secret acts in, by REST and by SOAP, with sfmc-sdk.
//   SFMC_DIR  where the Secret is mounted (/sfmc)
//   EVERY     seconds between calls (60)
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import SDK from 'sfmc-sdk';

const dir = process.env.SFMC_DIR ?? '/sfmc';

/** Returns a key of the Secret. It is read for each call: the files are replaced a few times an hour. */
function key(name) {
  try {
    return readFileSync(join(dir, name), 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    throw new Error(`no ${name} in ${dir}: is the Secret mounted there, and is the SFMCToken Ready?`);
  }
}

/** Returns an SDK that takes the mounted token for each call, and never asks for one of its own. */
function sdkOfMountedToken() {
  const sdk = new SDK({
    client_id: 'unused', // the SDK insists on both; this pod needs neither
    client_secret: 'unused',
    account_id: key('account_id'),
    auth_url: key('rest_instance_url').replace('.rest.', '.auth.'),
  });
  sdk.auth.getAccessToken = async () =>
    Object.assign(sdk.auth.authObject, {
      access_token: key('access_token'),
      rest_instance_url: key('rest_instance_url'),
      soap_instance_url: key('soap_instance_url'),
    });
  return sdk;
}

try {
  const sdk = sdkOfMountedToken();
  for (;;) {
    const context = await sdk.rest.get('platform/v1/tokenContext');
    const units = await sdk.soap.retrieve('BusinessUnit', ['ID']);
    console.log(`the token acts in business unit ${context.organization.id}, and by SOAP in ${units.Results[0].ID}`);
    await setTimeout(1000 * Number(process.env.EVERY ?? 60));
  }
} catch (error) {
  // Its message alone: the SDK's errors carry the request, and with it the token.
  console.error(error.message);
  process.exitCode = 1;
}
