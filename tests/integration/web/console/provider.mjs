// An OpenID provider of our own, for tests. Arguments: port, client id, client secret, redirect URI.
// Whoever signs in chooses a name and groups in the form of the provider itself.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [port, clientId, clientSecret, redirectUri] = process.argv.slice(2);
const groups = new Map();

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: clientId,
      client_secret: clientSecret,
      redirect_uris: [redirectUri],
      response_types: ["code"],
      grant_types: ["authorization_code"],
    },
  ],
  claims: { openid: ["sub", "groups"], profile: ["preferred_username"] },
  conformIdTokenClaims: false, // the groups are in the ID token, and not only at the userinfo endpoint
  pkce: { required: () => true },
  features: { devInteractions: { enabled: false } },
  cookies: { keys: ["of tests only"] },
  findAccount: (_ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: `name of ${id}`, groups: groups.get(id) ?? [] }),
  }),
  interactions: { url: (_ctx, interaction) => `/sign-in/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope("openid profile");
    await grant.save();
    return grant;
  },
});

const answer = provider.callback();
const server = createServer(async (request, response) => {
  const url = new URL(request.url, `http://127.0.0.1:${port}`);
  if (!url.pathname.startsWith("/sign-in/")) return answer(request, response);
  const account = url.searchParams.get("account");
  groups.set(account, (url.searchParams.get("groups") ?? "").split(",").filter(Boolean));
  await provider.interactionFinished(request, response, { login: { accountId: account } });
});
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
