-- One row a picture: what is wanted, how far it has come, and all that is known about its payment.
CREATE TABLE IF NOT EXISTS pictures (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request    jsonb NOT NULL,                  -- the fields of a Txt2Img
    state      text NOT NULL DEFAULT 'queued' CHECK (state IN (
                   'queued',                    -- nothing was sent
                   'intent',                    -- may be on its way: committed before the POST leaves
                   'submitted',                 -- paid for; the ticket is known
                   'done',                      -- the file is whole, at path
                   'unknown',                   -- may be paid for: a person decides
                   'failed',                    -- paid for, and the service says that it failed
                   'refused')),                 -- not paid for: the request isn't valid
    request_id text,
    ticket     text,
    path       text,
    owner      text,                            -- the worker that had it last: host, process
    error      text,                            -- why it is where it is, in words
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS pictures_by_state ON pictures (state);
