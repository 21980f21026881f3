"""The page: what the API tells, as HTML for people, under `/` and `/ui/`.

Every address is a whole document that works without JavaScript; with it the document's middle is fetched again when
something has changed and put in place of the old one piece by piece. Nothing here decides anything: a view asks the
same questions as the API's routes and calls the same verbs, with the caller that the login stands for.

In: a request with the cookie of a login. Out: a document, a stream of lines, or a way to another page. From the bottom:
`text` and `log_painter` make strings safe, `render` makes documents, `login` knows who looks, the
views answer, `site` puts them together. May import: what the routes may, and Jinja2.
"""
