/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The password over memcache: text as memcached's -Y has it (a first "set" whose value is "user password"), binary
 * with SASL PLAIN. The user's name does not matter, as with Redis's AUTH of one word.
 */
#include "backend/node_private.h"

static bool password_fits(const struct session *session, struct bytes password)
{
    return settings_password_fits(session->engine->settings, password);
}

static void count_error(struct session *session)
{
    session->engine->counters.auth_errors++;
    session->engine->counters.mc.auth_errors++;
}

static void say(struct session *session, struct bytes text)
{
    if (!outbuf_append(&session->engine->chunks, &session->out, text.data, text.len))
        session->io->kill(session);
}

bool client_auth_text(struct session *session, const struct mc_request *request)
{
    const char *blank;

    if (request->verb == MC_quit || session->engine->settings->password == NULL)
        return false;
    if (request->verb != MC_set) {
        say(session, BYTES("CLIENT_ERROR unauthenticated\r\n"));
        return true;
    }
    session->engine->counters.mc.auth++;
    blank = request->data.len > 0 ? memchr(request->data.data, ' ', request->data.len) : NULL;
    if (blank != NULL &&
        password_fits(session, bytes_skip(request->data, (size_t)(blank + 1 - request->data.data)))) {
        session->is_authenticated = true;
        say(session, BYTES("STORED\r\n"));
    } else {
        count_error(session);
        say(session, BYTES("CLIENT_ERROR authentication failure\r\n"));
    }
    return true;
}

/* authorization identity NUL name NUL password */
static bool plain_fits(const struct session *session, struct bytes message)
{
    for (int i = 0; i < 2; i++) {
        const char *nul = message.len > 0 ? memchr(message.data, '\0', message.len) : NULL;

        if (nul == NULL)
            return false;
        message = bytes_skip(message, (size_t)(nul + 1 - message.data));
    }
    return password_fits(session, message);
}

static void say_binary(struct session *session, const struct mc_bin_request *request, uint16_t status,
                       struct bytes value)
{
    struct mc_bin_header header = {
        .magic = MC_BIN_RESPONSE,
        .opcode = request->header.opcode,
        .status = status,
        .body_len = (uint32_t)value.len,
        .opaque = request->header.opaque,
    };
    char encoded[MC_BIN_HEADER];

    mc_bin_encode(&header, encoded);
    say(session, bytes_of(encoded, sizeof(encoded)));
    say(session, value);
}

bool client_auth_binary(struct session *session, const struct mc_bin_request *request)
{
    uint8_t verb = request->verb != NULL ? request->verb->id : (uint8_t)MC_none;

    if (verb == MC_quit || verb == MC_version || session->engine->settings->password == NULL)
        return false;
    if (verb == MC_sasl_list) {
        say_binary(session, request, MC_BIN_OK, BYTES("PLAIN"));
        return true;
    }
    session->engine->counters.mc.auth += verb == MC_sasl_auth;
    if (verb == MC_sasl_auth && bytes_equal(request->key, BYTES("PLAIN")) &&
        plain_fits(session, request->value)) {
        session->is_authenticated = true;
        say_binary(session, request, MC_BIN_OK, BYTES("Authenticated"));
        return true;
    }
    if (verb == MC_sasl_auth)
        count_error(session);
    say_binary(session, request, MC_BIN_AUTH_ERROR, BYTES("Auth failure."));
    session->close_after_reply = true;
    return true;
}
