"""Retrieval-augmented generation with LangChain, before and after one line.

    python examples/langchain_rag.py

The vector store is LangChain's own and stays as it is; the line that makes the retriever changes.
"""

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from packaged import MiniLM, SmolLM, passages, questions, show, total
from sift_store_langchain import SIFTRetriever

PROMPT = PromptTemplate.from_template(
    "Answer in a few words, from these passages alone.\n\n{context}\n\nQuestion: {question}"
)


class PackagedEmbeddings(MiniLM, Embeddings):
    """MiniLM as LangChain's embeddings."""


def context(documents: list[Document]) -> str:
    return "\n\n".join(f"{document.metadata['title']}: {document.page_content}" for document in documents)


def prompting(retriever: BaseRetriever) -> Runnable:
    return {"context": retriever | context, "question": RunnablePassthrough()} | PROMPT


def main() -> None:
    vectorstore = InMemoryVectorStore(PackagedEmbeddings())
    vectorstore.add_documents(
        [Document(page_content=one["text"], metadata={"title": one["title"]}, id=one["id"]) for one in passages()]
    )
    model = SmolLM()
    llm = RunnableLambda(lambda prompt: model.answer(prompt.to_string())) | StrOutputParser()

    before = vectorstore.as_retriever(search_kwargs={"k": 4})
    after = SIFTRetriever(store=vectorstore, k=4)  # the one line

    found = []
    for question in questions():
        seen = [
            [(document.metadata["title"], document.page_content) for document in retriever.invoke(question["text"])]
            for retriever in (before, after)
        ]
        found.append(show(question, *seen))
        for name, retriever in (("before", before), ("after", after)):
            prompt = prompting(retriever).invoke(question["text"])
            print(f"  answer {name} ({len(prompt.to_string().split())} words of prompt): {llm.invoke(prompt)}")
    total(found)


if __name__ == "__main__":
    main()
